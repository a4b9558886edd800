// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The checkpoint that is part of the executable: a nano Llama trained on the synthetic language.

#include <string_view>

#include "ropewalk/hub/checkpoint_data.hpp"

namespace cli {

using namespace ropewalk;

/// What --model takes for it.
inline constexpr std::string_view embedded_name = "embedded";

/// The weights are those of experiments/nano, which says how they were made.
template <class T>
CheckpointOf<T> load_embedded();
extern template CheckpointOf<float> load_embedded();
extern template CheckpointOf<bf16> load_embedded();

}  // namespace cli
