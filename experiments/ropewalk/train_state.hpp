// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a training run needs to go on: one file, complete or not there.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ropewalk/train/adamw.hpp"

#include "output.hpp"

namespace cli {

using namespace ropewalk;

/// Its name in the folder of a run.
inline constexpr const char* train_state_name = "training_state.safetensors";

/// Where a run is.
struct TrainPosition {
  std::int64_t stage = 0;
  std::int64_t stage_step = 0;           ///< steps done of the stage
  std::int64_t step = 0;                 ///< steps done of the run
  std::int64_t tokens = 0;               ///< trained on so far
  std::vector<std::int64_t> dealt = {};  ///< sequences that each part of the stage's mixture gave
  double row_loss = 0;                   ///< sum of the steps since the last row
  std::int64_t row_steps = 0;
  double gradient_norm = 0;  ///< of the last step
};

struct TrainState {
  TrainPosition position = {};
  LlamaWeights<float> weights = {};
  AdamWState optimizer = {};
};

/// Writes the state durably under its name, or leaves what was there.
/// \throws Error(resource | io)
void save_train_state(const std::string& path, const std::string& config_hash,
                      const LlamaConfig& config, const TrainPosition& position,
                      const LlamaWeights<float>& weights, const AdamWState& optimizer);

/// The state of a file, or nothing when there is none. An empty hash fits every run.
/// \throws Error(state) when it is damaged or of another run
std::optional<TrainState> load_train_state(const std::string& path, const std::string& config_hash,
                                           const LlamaConfig& config);

}  // namespace cli
