// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What attention reads and writes, and the rows that it takes over a block of keys together.

#include <algorithm>
#include <span>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/row_tiles.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Queries and keys under one rotation; plain RoPE has one branch, position remapping several.
template <class T>
struct AttentionBranch {
  TensorView<const T, 3>
      queries;               ///< (tokens, H, D), times softmax_scale * log2(e); for bf16 D even
  KeyValuePanels<T> panels;  ///< values are read from branch 0
};

/// What attend() reads and writes; the same for all tasks of a layer.
template <class T>
struct AttentionCall {
  std::span<const AttentionBranch<T>> branches;
  const BlockPlan* plan = nullptr;
  TensorView<T, 3> output;   ///< (tokens, H, D); may be the queries' memory of a single branch
  TensorView<float, 2> lse;  ///< (H, tokens), natural log; or empty
};

namespace detail {

/// Query rows, a block of one head each, that pass over a key block one after the other while it is
/// in the L2 cache.
inline constexpr index_t bundle_size = 4;

/// Floats of what attend() keeps per worker: outputs of a bundle and the scores of a query block
/// with a key block; for bf16 also room for queries that are widened where there is no dot product
/// of pairs.
struct AttentionScratch {
  index_t head_dim;

  index_t padded() const { return spread_stride(head_dim); }
  index_t rows() const { return query_block * padded(); }
  index_t scores() const { return query_block * score_stride; }
};

/// Rows that attend together: queries of one head, or one query of several heads.
struct AttentionRows {
  const QueryBlock* block = nullptr;
  index_t first_head = 0;
  index_t count = 0;
  bool heads_are_rows = false;
  float* output = nullptr;  ///< (rows, padded), not yet divided by the sums
  SoftmaxState state[query_block];

  index_t token(index_t row) const { return block->queries.begin + (heads_are_rows ? 0 : row); }
  index_t head(index_t row) const { return first_head + (heads_are_rows ? row : 0); }
};

/// Rows of a bundle and some of their keys: what one step of attention takes.
template <class T>
struct AttentionBlock {
  const AttentionCall<T>& call;
  AttentionRows& rows;
  const KeyRange& range;
  Interval keys;  ///< of the segment; at most key_block of them
  index_t key_head;

  const AttentionBranch<T>& branch() const {
    return call.branches[static_cast<std::size_t>(range.branch)];
  }
  const Segment& segment() const {
    return call.plan->segments[static_cast<std::size_t>(rows.block->segment)];
  }
  /// Where the first key lies.
  index_t slot() const { return segment().key_base + keys.begin; }
  /// (rows, D), row stride query_stride()
  const T* queries() const {
    return &branch().queries(rows.block->queries.begin, rows.first_head, 0);
  }
  index_t query_stride() const { return branch().queries.stride(rows.heads_are_rows ? 1 : 0); }
  const T* key_panels() const { return branch().panels.key_panel(key_head, slot()); }
  /// The values' panel p from the first key on.
  const T* values(index_t p) const {
    return call.branches[0].panels.value_panel(key_head, p, slot());
  }
  Interval visible(index_t row) const {
    return visible_columns(*call.plan, range, keys, rows.token(row));
  }

  /// f(row tile) for tiles that see some of the keys.
  template <class Arch, class F>
  void for_each_tile(F&& f) const {
    for_each_tile_of_rows<Arch, T>(rows.count, [&](index_t row, index_t count) {
      Interval seen{keys.size(), 0};
      for (index_t i = 0; i < count; ++i) {
        const Interval columns = visible(row + i);
        if (columns.empty()) continue;
        seen = {std::min(seen.begin, columns.begin), std::max(seen.end, columns.end)};
      }
      if (!seen.empty()) f(RowTile{row, count, seen});
    });
  }
  /// Columns of a tile that become weights.
  Interval weighed(const RowTile& tile) const {
    return {tile.seen.begin / panel_width * panel_width,
            round_up(tile.seen.end, depth_group<T> * lane_count)};
  }
  /// Masks the scores of a row, and raises its reference to them; factor: as raise() gives it.
  template <class Arch>
  VisibleColumns mask(index_t row, float* scores, float& factor) const {
    const VisibleColumns columns = mask_row<Arch>(
        *call.plan, range, visible(row), rows.token(row) - rows.block->queries.begin, scores);
    factor =
        columns.hull.empty() ? 1.0f : rows.state[row].raise(largest_of<Arch>(scores, columns.hull));
    return columns;
  }
  /// Makes weights of what mask() has seen.
  template <class Arch>
  void weigh(index_t row, float* scores, VisibleColumns columns, Interval weighed) const {
    SoftmaxState& state = rows.state[row];
    state.sum += static_cast<double>(
        weigh_row<Arch, T>(scores, columns, weighed, state.empty() ? 0 : state.reference));
  }
};

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
