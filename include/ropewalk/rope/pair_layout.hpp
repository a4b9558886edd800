// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The two ways in which channels of a head form rotated pairs.

#include <string_view>

#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Which channels of a head rotate together; i < d/2. Where a part of the head rotates (partial
/// rotation), d is the channels of that part and all indices count from its first channel: of the
/// part [o, o + d), half_split pairs o + i with o + i + d/2. The wrong one gives silently wrong
/// logits, so loaders state it and nothing guesses it.
enum class PairLayout {
  half_split,   ///< (i, i + d/2): Hugging Face, NeoX
  interleaved,  ///< (2i, 2i + 1): Meta, llama2.c, GPT-J
};

constexpr std::string_view pair_layout_name(PairLayout layout) {
  return layout == PairLayout::half_split ? "half_split" : "interleaved";
}

/// Channels of a pair, as types for kernels.
struct HalfSplit {
  static constexpr PairLayout layout = PairLayout::half_split;
  static constexpr index_t first(index_t pair, index_t) { return pair; }
  static constexpr index_t second(index_t pair, index_t num_pairs) { return pair + num_pairs; }
};
struct Interleaved {
  static constexpr PairLayout layout = PairLayout::interleaved;
  static constexpr index_t first(index_t pair, index_t) { return 2 * pair; }
  static constexpr index_t second(index_t pair, index_t) { return 2 * pair + 1; }
};

}  // namespace ropewalk::inline ROPEWALK_ABI
