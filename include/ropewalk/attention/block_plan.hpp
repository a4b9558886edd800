// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// BlockPlan: a mask lowered to plain data, the only form in which attention kernels know it.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "ropewalk/attention/concepts.hpp"
#include "ropewalk/core/error.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Keys of a block, counted from the start of their segment. A constant of the canonical
/// arithmetic: softmax sums and partial outputs are formed per block.
inline constexpr index_t key_block = 512;
/// Rows of a query block. Free: results do not depend on it.
inline constexpr index_t query_block = 96;
/// Keys of a panel (linalg/packed_matrix.hpp); segments start on a fresh one.
inline constexpr index_t key_panel = 64;

/// Tokens that attend among themselves only (a document): their keys lie in panels of their own, so
/// that a document packed with others has the same blocks, hence the same bits, as alone.
struct Segment {
  Interval queries;      ///< rows of the batch
  index_t key_base = 0;  ///< slot of the segment's key 0; a multiple of key_panel
  index_t past = 0;      ///< keys that were there before the first query (a KV cache)
  index_t num_keys() const { return past + queries.size(); }
};

/// A run of key blocks that a query block attends to in one way.
struct KeyRange {
  enum class Cover {
    full,       ///< every row sees every key
    intervals,  ///< row t sees its BlockPlan::row_keys[t]
    bits,       ///< row t sees the keys whose bit is set; the range is one block
  };
  Interval keys;  ///< within the segment; begins at a multiple of key_block
  Cover cover = Cover::full;
  std::int32_t branch = 0;  ///< which rotation of queries and keys scores it
  index_t bits = 0;         ///< first word in BlockPlan::bits: key_block / 64 words a row
};

/// A few query rows and what they attend to, ranges in ascending order of keys.
struct QueryBlock {
  Interval queries;  ///< rows of the batch, all of one segment
  index_t segment = 0;
  Interval ranges;  ///< in BlockPlan::ranges
};

/// Who attends to whom in a batch; shared by all heads and by all layers of one mask.
struct BlockPlan {
  std::vector<Segment> segments;
  std::vector<QueryBlock> query_blocks;
  std::vector<KeyRange> ranges;
  std::vector<Interval> row_keys;   ///< (rows) visible keys within the segment; empty if unused
  std::vector<std::uint64_t> bits;  ///< words of Cover::bits ranges
  std::vector<index_t> key_slot;    ///< (rows) where the row's own key and value are stored
  index_t key_slots = 0;            ///< slots to be stored for all segments
};

namespace detail {

/// Visible keys of row i of the segment, by the mask's own interval.
template <RowIntervalMask M>
Interval local_row_keys(const M& mask, const Segment& s, index_t row) {
  const index_t first_key = s.queries.begin;  // absolute index of the segment's key 0
  const Interval seen = mask.row_interval(row + s.past);
  const Interval local{std::max<index_t>(seen.begin - first_key, 0),
                       std::min<index_t>(seen.end - first_key, s.num_keys())};
  return local.empty() ? Interval{} : local;
}

template <RowIntervalMask M>
void append_ranges(const M& mask, const Segment& s, Interval rows, BlockPlan& plan) {
  Interval any{s.num_keys(), 0}, all{0, s.num_keys()};  // union's hull and intersection of rows
  for (index_t row = rows.begin; row < rows.end; ++row) {
    const Interval keys = local_row_keys(mask, s, row);
    plan.row_keys[static_cast<std::size_t>(row)] = keys;
    all = {std::max(all.begin, keys.begin), std::min(all.end, keys.end)};
    if (!keys.empty()) any = {std::min(any.begin, keys.begin), std::max(any.end, keys.end)};
  }
  const std::size_t first = plan.ranges.size();
  for (index_t k = any.begin / key_block * key_block; k < any.end; k += key_block) {
    const Interval block{k, std::min(k + key_block, any.end)};
    const auto cover = all.begin <= block.begin && block.end <= all.end
                           ? KeyRange::Cover::full
                           : KeyRange::Cover::intervals;
    if (plan.ranges.size() > first && plan.ranges.back().cover == cover) {
      plan.ranges.back().keys.end = block.end;
    } else {
      plan.ranges.push_back({.keys = block, .cover = cover});
    }
  }
}

template <AttentionMask M>
void append_ranges(const M& mask, const Segment& s, Interval rows, BlockPlan& plan) {
  constexpr index_t words = key_block / 64;
  const index_t origin = s.queries.begin;
  for (index_t k = 0; k < s.num_keys(); k += key_block) {
    const Interval block{k, std::min(k + key_block, s.num_keys())};
    const BlockKind kind = classify_or_partial(mask, {rows.begin + s.past, rows.end + s.past},
                                               {origin + block.begin, origin + block.end});
    if (kind == BlockKind::skip) continue;
    if (kind == BlockKind::full) {
      plan.ranges.push_back({.keys = block});
      continue;
    }
    const std::size_t first_word = plan.bits.size();
    plan.bits.resize(first_word + static_cast<std::size_t>(rows.size() * words));
    index_t visible = 0;
    for (index_t row = rows.begin; row < rows.end; ++row) {
      std::uint64_t* word = plan.bits.data() + first_word + (row - rows.begin) * words;
      for (index_t j = block.begin; j < block.end; ++j) {
        if (!mask.visible(row + s.past, origin + j)) continue;
        word[(j - block.begin) / 64] |= std::uint64_t{1} << ((j - block.begin) % 64);
        ++visible;
      }
    }
    if (visible == 0 || visible == rows.size() * block.size()) plan.bits.resize(first_word);
    if (visible == 0) continue;
    if (visible == rows.size() * block.size()) {
      plan.ranges.push_back({.keys = block});
    } else {
      plan.ranges.push_back({.keys = block,
                             .cover = KeyRange::Cover::bits,
                             .bits = static_cast<index_t>(first_word)});
    }
  }
}

}  // namespace detail

/// Lowers a mask for a batch of `num_tokens` rows that is cut into segments at `cu_seqlens` (as
/// FlashAttention: first 0, last num_tokens; empty = the mask's own documents, or one segment). The
/// mask is asked with absolute token indices; what lies outside the segment is not visible whatever
/// it says. `past` keys of a cache precede the rows; then there must be one segment, and indices
/// count from the cache's start.
///
/// **Cost:** O(tokens + key blocks) for a RowIntervalMask, else O(tokens x keys), once per batch.
/// \throws Error(usage) when cu_seqlens does not fit num_tokens.
template <AttentionMask M>
BlockPlan make_block_plan(const M& mask, index_t num_tokens,
                          std::span<const std::int32_t> cu_seqlens = {}, index_t past = 0) {
  require(num_tokens >= 0 && past >= 0, "num_tokens >= 0 and past >= 0");
  check_mask(mask, num_tokens + past);
  const std::int32_t whole[2] = {0, static_cast<std::int32_t>(num_tokens)};
  if constexpr (DocumentMask<M>) {
    if (cu_seqlens.empty() && past == 0) cu_seqlens = mask.cu_seqlens();
  }
  if (cu_seqlens.empty()) cu_seqlens = whole;
  require(cu_seqlens.front() == 0 && cu_seqlens.back() == num_tokens,
          "cu_seqlens from 0 to the number of tokens");
  require(past == 0 || cu_seqlens.size() == 2, "one segment when there are cached keys");

  BlockPlan plan;
  plan.key_slot.resize(static_cast<std::size_t>(num_tokens));
  if constexpr (RowIntervalMask<M>) plan.row_keys.resize(static_cast<std::size_t>(num_tokens));
  for (std::size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
    require(cu_seqlens[d] <= cu_seqlens[d + 1], "ascending cu_seqlens");
    const Segment s{{cu_seqlens[d], cu_seqlens[d + 1]}, plan.key_slots, past};
    if (s.queries.empty()) continue;
    plan.key_slots += (s.num_keys() + key_panel - 1) / key_panel * key_panel;
    for (index_t row = s.queries.begin; row < s.queries.end; ++row) {
      plan.key_slot[static_cast<std::size_t>(row)] = s.key_base + past + row - s.queries.begin;
    }
    for (index_t q = s.queries.begin; q < s.queries.end; q += query_block) {
      const Interval rows{q, std::min(q + query_block, s.queries.end)};
      const auto first = static_cast<index_t>(plan.ranges.size());
      detail::append_ranges(mask, s, rows, plan);
      plan.query_blocks.push_back({rows,
                                   static_cast<index_t>(plan.segments.size()),
                                   {first, static_cast<index_t>(plan.ranges.size())}});
    }
    plan.segments.push_back(s);
  }
  return plan;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
