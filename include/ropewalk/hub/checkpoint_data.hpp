// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Checkpoint: a model as loaded from files.

#include <cstdint>
#include <string>
#include <vector>

#include "ropewalk/model/weights.hpp"
#include "ropewalk/rope/any_frequency.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A model in memory, its matrices stored as T, and where it came from.
template <class T>
struct CheckpointOf {
  LlamaConfig config;
  AnyFrequency rope;        ///< what the model was trained with
  LlamaWeights<T> weights;  ///< as stored: with norm_head the rows of lm_head are still raw
  std::string path;         ///< as the user gave it
  /// Of the names, shapes and float32 bits of all parameters in the file, before they are rounded
  /// to T: the same for a lossless copy in another dtype or container.
  std::uint64_t weights_hash = 0;
  std::string dtype;               ///< of the matrices in the file: f32, bf16, f16
  std::string tokenizer_path;      ///< the tokenizer that the model folder brings, or empty
  std::vector<std::string> notes;  ///< remarks for the user: defaults taken, things ignored
};

using Checkpoint = CheckpointOf<float>;

}  // namespace ropewalk::inline ROPEWALK_ABI
