// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What every cell of a grid costs, known before it starts: operations, memory and time.

#include <cstdint>
#include <string>
#include <vector>

#include "run_plan.hpp"

namespace cli {

/// Speed of a model, from batches of short windows and a long one.
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
Speed measure_speed(const Grid& grid, const Evaluation& evaluation, const RunPlan& plan,
                    LoadedModel& model);

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
                                 const RunPlan& plan, const KnownCells& known, LoadedModel& model,
                                 const Speed& speed);

/// `--dry-run`: prints the costs of all cells and their total. \throws as check_run_memory, after
/// printing
void print_plan(const Grid& grid, const Evaluation& evaluation, LoadedModel& model,
                const KnownCells& known, Format format, bool quiet);

}  // namespace cli
