// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a sweep costs, known before it starts: operations, memory and time.

#include <cstdint>
#include <string>
#include <vector>

#include "ropewalk/model/cost.hpp"

#include "grid.hpp"

namespace cli {

/// Memory of a run at its peak, in bytes.
struct RunMemory {
  std::int64_t loaded = 0;  ///< by the process before the first pass, weights and ids included
  ForwardMemory pass = {};  ///< of the longest pass
  std::int64_t losses = 0;  ///< of a setting, of the first one, and what summaries take
  std::int64_t before = 0;  ///< the peak while loading

  std::int64_t peak() const {
    return std::max(before, loaded + std::int64_t{pass.total() - pass.weights} + losses);
  }
};

RunMemory run_memory(const Evaluation& evaluation, const std::vector<SettingPasses>& passes,
                     LoadedModel& model);

/// "weights 1.2 GB, workspace 0.3 GB, ...": the `count` largest terms.
std::string largest_terms(const RunMemory& memory, std::size_t count);

/// \throws Error(resource) when the peak is more than 0.9 of what the process may have: the largest
/// terms, the limit, and the setting that would fit.
void check_run_memory(const RunMemory& memory, const std::vector<SettingPasses>& passes,
                      LoadedModel& model);
/// The same for the weights of a model that is not loaded yet, where its shape can be told from a
/// header.
void check_weights_memory(const std::string& model_path);

/// Speed of a model, from passes of two lengths.
struct Speed {
  double product_flops = 0;    ///< a second, of matrix products
  double attention_flops = 0;  ///< a second, of attention
  index_t short_length = 0, long_length = 0;
  double measured_seconds = 0;

  double seconds_of(const ForwardFlops& flops) const {
    return (flops.products + flops.head) / product_flops + flops.attention / attention_flops;
  }
};

/// Runs the model on the first tokens of the text for at most about two seconds.
Speed measure_speed(const Grid& grid, const Evaluation& evaluation, LoadedModel& model);

/// What one cell costs. Passes that several cells share are booked on the longest of them.
struct CellCost {
  CellKey key = {};
  std::string rope = {};
  bool done = false;  ///< known from an earlier run
  std::int64_t passes = 0;
  std::int64_t tokens = 0;  ///< fed to the model
  double flops = 0;
  double seconds = 0;
  std::int64_t peak_bytes = 0;
};

std::vector<CellCost> cell_costs(const Grid& grid, const Evaluation& evaluation,
                                 const std::vector<SettingPasses>& passes, const KnownCells& known,
                                 const RunMemory& memory, LoadedModel& model, const Speed& speed);

/// `--dry-run`: prints the costs of all cells and their total. \throws as check_run_memory, after
/// printing
void print_plan(const Grid& grid, const Evaluation& evaluation, LoadedModel& model,
                const KnownCells& known, Format format, bool quiet);

}  // namespace cli
