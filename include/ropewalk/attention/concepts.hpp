// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What an attention mask is: the truth per pair of tokens, and the accelerators it may offer.

#include <concepts>
#include <cstdint>
#include <span>

#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What a mask says of a rectangle of queries x keys.
enum class BlockKind {
  skip,     ///< no pair is visible
  partial,  ///< ask visible() for each pair
  full,     ///< every pair is visible
};

/// Says which keys a query may attend to. A mask is a small copyable value; everything here is
/// pure. Laws: tests/laws/attention_mask_laws.hpp.
///  - `visible(i, j)`: query i sees key j; both are absolute token indices in the batch, >= 0.
/// Optional:
///  - `check(n)`: throws Error(usage) when the mask does not fit a batch of n tokens.
///  - what RowIntervalMask, ClassifyingMask and DocumentMask ask for.
template <class M>
concept AttentionMask = std::copyable<M> && requires(const M& m, index_t i, index_t j) {
  { m.visible(i, j) } -> std::same_as<bool>;
};

/// The keys that query i sees are the one interval `row_interval(i)` of [0, tokens). It may reach
/// past the batch (callers cut it to the keys they have) and may be empty.
template <class M>
concept RowIntervalMask = AttentionMask<M> && requires(const M& m, index_t i) {
  { m.row_interval(i) } -> std::same_as<Interval>;
};

/// `classify(q, k)` may answer partial at any time, skip and full only when exact.
template <class M>
concept ClassifyingMask = AttentionMask<M> && requires(const M& m, Interval q, Interval k) {
  { m.classify(q, k) } -> std::same_as<BlockKind>;
};

/// No token sees another document's: document d is [cu_seqlens()[d], cu_seqlens()[d + 1]), so each
/// document may be computed as a segment of its own.
template <class M>
concept DocumentMask = AttentionMask<M> && requires(const M& m) {
  { m.cu_seqlens() } -> std::same_as<std::span<const std::int32_t>>;
};

/// The mask's check of a batch of `num_tokens` tokens, if it has one. \throws Error(usage)
template <AttentionMask M>
constexpr void check_mask(const M& mask, index_t num_tokens) {
  if constexpr (requires { mask.check(num_tokens); }) mask.check(num_tokens);
}

/// The mask's classify(), or partial where it has none.
template <AttentionMask M>
constexpr BlockKind classify_or_partial(const M& mask, Interval q, Interval k) {
  if constexpr (ClassifyingMask<M>) {
    return mask.classify(q, k);
  } else {
    return BlockKind::partial;
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
