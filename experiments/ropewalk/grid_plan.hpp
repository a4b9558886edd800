// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Which passes a grid needs, and in which batches they run.

#include <vector>

#include "grid.hpp"

namespace cli {

/// The passes of one setting: for each group of requests, what is run and which of it is needed.
struct SettingPasses {
  std::vector<PassPlan> plans = {};             ///< one a group
  std::vector<std::vector<bool>> needed = {};   ///< [group][pass]
  std::vector<std::vector<index_t>> last = {};  ///< [group][request]: its last pass
};

/// Plans the passes of every setting. Needed are those of cells that are not known, of files of
/// losses, and of the first setting where a difference to it is to be computed.
std::vector<SettingPasses> plan_settings(const Grid& grid, const Evaluation& evaluation,
                                         const KnownCells& known);

/// A pass of the grid: of which setting and group of requests.
struct GridPass {
  std::size_t setting = 0;
  std::size_t group = 0;
  std::size_t pass = 0;
};

/// What a run executes: the passes that are needed, settings, groups and passes in order, cut into
/// batches that are one forward pass each. A batch may hold the end of one setting and the
/// beginning of others.
struct GridBatches {
  std::vector<GridPass> passes = {};
  std::vector<std::size_t> ends = {};  ///< of each batch in `passes`
};

inline const Pass& pass_of(const std::vector<SettingPasses>& settings, const GridPass& p) {
  return settings[p.setting].plans[p.group].passes[p.pass];
}

/// \param batch_tokens as of cut_batches
GridBatches batch_passes(const Grid& grid, const std::vector<SettingPasses>& settings,
                         index_t head_dim, index_t batch_tokens);

}  // namespace cli
