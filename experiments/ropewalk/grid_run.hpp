// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Computes a grid, one batch of passes after the other.

#include <functional>
#include <string>
#include <vector>

#include "grid_plan.hpp"

namespace cli {

class ResultsFolder;

/// What run_grid works on and reports to.
struct GridRun {
  const Grid& grid;
  const Evaluation& evaluation;
  const std::vector<SettingPasses>& settings;
  const GridBatches& batches;
  LoadedModel& model;
  const Row& origin;
  const ScoringData& data;
  ResultsFolder* folder = nullptr;  ///< keeps rows and losses; null: nothing is kept
  std::string command = {};
  bool quiet = false;
};

/// Computes the cells that the folder does not know, appends each to it as soon as its last pass is
/// done, writes the files of losses, and gives every cell to `finished(setting, cell)`: settings,
/// protocols and lengths in order.
/// \throws Stopped after making durable what is done; Error(state) when a cell computed again
/// differs from the known one
void run_grid(const GridRun& run,
              const std::function<void(const Setting&, const CellRow&)>& finished);

/// Runs what another executor runs, stoppable between the layers of a pass.
class StoppableExecutor {
 public:
  explicit StoppableExecutor(Executor inner) : inner_(inner) {}
  StoppableExecutor(const StoppableExecutor&) = delete;
  StoppableExecutor& operator=(const StoppableExecutor&) = delete;
  /// \throws Stopped from run(), between the parallel regions of a pass.
  Executor executor();

 private:
  Executor inner_;
};

}  // namespace cli
