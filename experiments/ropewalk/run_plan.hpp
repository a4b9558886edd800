// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The passes and batches of a run, and the memory that they take.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "ropewalk/model/cost.hpp"

#include "grid_plan.hpp"

namespace cli {

/// Memory of a run at its peak, in bytes.
struct RunMemory {
  std::int64_t loaded = 0;  ///< by the process before the first pass, weights and ids included
  ForwardMemory pass = {};  ///< of the largest batch of passes
  std::int64_t losses = 0;  ///< of the settings that are held at once, and what summaries take
  std::int64_t before = 0;  ///< the peak while loading

  std::int64_t peak() const {
    return std::max(before, loaded + std::int64_t{pass.total() - pass.weights} + losses);
  }
};

/// What a run will do, and what it takes.
struct RunPlan {
  std::vector<SettingPasses> settings = {};
  index_t batch_tokens = 0;  ///< as of cut_batches
  GridBatches batches = {};
  RunMemory memory = {};
  bool fits = false;  ///< in 0.9 of what the process may have
};

/// Plans what is left of a grid. Batches are as large as default_batch_tokens, or smaller where
/// they would not fit memory.
RunPlan plan_run(const Grid& grid, const Evaluation& evaluation, LoadedModel& model,
                 const KnownCells& known);

/// "weights 1.2 GB, workspace 0.3 GB, ...": the `count` largest terms.
std::string largest_terms(const RunMemory& memory, std::size_t count);

/// \throws Error(resource) when the run does not fit: the largest terms, the limit, and the setting
/// that would fit.
void check_run_memory(const RunPlan& plan, LoadedModel& model);
/// The same for the weights of a model that is not loaded yet, where its shape can be told from a
/// header.
void check_weights_memory(const ModelOptions& options);

/// Bytes of the largest of the batches as a forward pass.
ForwardMemory largest_batch(LoadedModel& model, const std::vector<SettingPasses>& settings,
                            const GridBatches& batches);

}  // namespace cli
