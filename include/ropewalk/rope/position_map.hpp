// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// PositionMap: which position each token of a batch has.

#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

#include "ropewalk/core/error.hpp"
#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Maps a token's index in the batch to its position, an integer times a constant `scale()`. The
/// scale folds into the turns (with_position_scale), so positions stay integers and angles exact.
template <class M>
concept PositionMap = std::copyable<M> && requires(const M& map, std::int64_t token) {
  { map(token) } -> std::same_as<std::int64_t>;
  { map.scale() } -> std::convertible_to<double>;
};

/// One document: token t is at position first + t.
struct Identity {
  std::int64_t first = 0;
  std::int64_t operator()(std::int64_t token) const { return first + token; }
  double scale() const { return 1; }
};
static_assert(PositionMap<Identity>);

/// Packed documents: positions start from 0 at the start of each.
/// cu_seqlens: (documents + 1) as FlashAttention has them, starts of the documents and the end,
/// ascending from 0; not owned.
struct DocumentRestart {
  std::span<const std::int32_t> cu_seqlens;
  std::int64_t operator()(std::int64_t token) const {
    std::size_t document = 0, end = cu_seqlens.size();  // cu_seqlens[document] <= token < [end]
    while (end - document > 1) {
      const std::size_t middle = document + (end - document) / 2;
      (cu_seqlens[middle] <= token ? document : end) = middle;
    }
    return token - cu_seqlens[document];
  }
  double scale() const { return 1; }
};
static_assert(PositionMap<DocumentRestart>);

/// The positions of tokens 0 .. num_tokens - 1. Result: (num_tokens).
template <PositionMap M>
std::vector<std::int64_t> batch_positions(const M& map, index_t num_tokens) {
  require(num_tokens >= 0, "num_tokens >= 0");
  std::vector<std::int64_t> positions(static_cast<std::size_t>(num_tokens));
  std::int64_t token = 0;
  for (std::int64_t& p : positions) p = map(token++);
  return positions;
}

/// The positions of packed documents. Result: (cu_seqlens.back()).
/// \throws Error(usage) when cu_seqlens does not ascend from 0.
inline std::vector<std::int64_t> batch_positions(DocumentRestart map) {
  bool ascending = !map.cu_seqlens.empty() && map.cu_seqlens.front() == 0;
  for (std::size_t i = 1; i < map.cu_seqlens.size(); ++i) {
    ascending = ascending && map.cu_seqlens[i - 1] <= map.cu_seqlens[i];
  }
  require(ascending, "cu_seqlens ascending from 0");
  return batch_positions(map, map.cu_seqlens.back());
}

/// A plan whose frequencies are multiplied by `scale`: at position p it turns as `plan` would at
/// p * scale. A scale of 1 changes no bit. \throws Error(usage) for a negative or infinite scale.
inline FrequencyPlan with_position_scale(FrequencyPlan plan, double scale) {
  require(scale >= 0 && scale < 0x1p40, "a finite position scale of at least 0");
  for (double& w : plan.inv_freq) w *= scale;
  seal(plan);
  return plan;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
