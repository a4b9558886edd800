// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The three steps of blockwise attention on one row tile: scores, weights, products with values.

#include <algorithm>
#include <limits>

#include "ropewalk/attention/panels.hpp"
#include "ropewalk/attention/softmax_row.hpp"
#include "ropewalk/linalg/tile.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// Rows of a query block that go through the registers together, and the columns of a key block
/// that some of them see.
struct RowTile {
  index_t row = 0;   ///< the first, within the query block
  index_t rows = 0;  ///< a size that for_each_row_tile gives, or by matrix tiles at most 32
  Interval seen;
};

/// Most rows of a tile.
template <class Arch, class T>
inline constexpr index_t most_tile_rows =
    simd::takes_matrix_tiles<Arch, T> ? simd::tile_block : index_t{GemmTile<Arch>::rows};

/// Calls f(first row, rows) for tiles that cover [0, rows).
template <class Arch, class T, class F>
[[gnu::always_inline]] inline void for_each_tile_of_rows(index_t rows, F&& f) {
  if constexpr (simd::takes_matrix_tiles<Arch, T>) {
    for (index_t row = 0; row < rows; row += simd::tile_block) {
      f(row, std::min(rows - row, simd::tile_block));
    }
  } else {
    for_each_row_tile<Arch>(
        rows, [&](auto tile_rows, index_t row) { f(row, static_cast<index_t>(tile_rows())); });
  }
}

/// Calls f(integral_constant<rows of the tile>).
template <class Arch, class F>
[[gnu::always_inline]] inline void with_rows(const RowTile& tile, F&& f) {
  for_each_row_tile<Arch>(tile.rows, [&](auto rows, index_t) { f(rows); });
}

/// Columns of the block [block.begin, block.end) of the segment that a token sees; in a range of
/// bits the whole block.
inline Interval visible_columns(const BlockPlan& plan, const KeyRange& range, Interval block,
                                index_t token) {
  if (range.cover != KeyRange::Cover::intervals) return {0, block.size()};
  const Interval keys = plan.row_keys[static_cast<std::size_t>(token)];
  const Interval columns{std::max<index_t>(keys.begin - block.begin, 0),
                         std::min(keys.end - block.begin, block.size())};
  return columns.empty() ? Interval{} : columns;
}

/// Sets what lies in the whole vectors around `columns` and is not visible to -inf.
template <class Arch>
VisibleColumns mask_row(const BlockPlan& plan, const KeyRange& range, Interval columns,
                        index_t row_of_block, float* scores) {
  using V = simd::Floats<Arch>;
  constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
  if (columns.empty()) return {};
  const V invisible(minus_infinity);
  const Interval hull{columns.begin / lane_count * lane_count, round_up(columns.end, lane_count)};
  VisibleColumns visible{hull, hull};
  if (columns.begin != hull.begin) {
    V::select_first(columns.begin - hull.begin, invisible, V::load(scores + hull.begin))
        .store(scores + hull.begin);
    visible.clear.begin += lane_count;
  }
  if (columns.end != hull.end) {
    float* last = scores + hull.end - lane_count;
    V::select_first(columns.end - (hull.end - lane_count), V::load(last), invisible).store(last);
    visible.clear.end -= lane_count;
  }
  if (range.cover != KeyRange::Cover::bits) return visible;
  const std::uint64_t* word = plan.bits.data() + range.bits + row_of_block * (key_block / 64);
  bool any = false;
  for (index_t c = columns.begin; c < columns.end; ++c) {
    const bool seen = word[c / 64] >> (c % 64) & 1u;
    if (!seen) scores[c] = minus_infinity;
    any = any || seen;
  }
  return any ? VisibleColumns{hull, {}} : VisibleColumns{};
}

/// Scores of a row tile with 16 Vectors keys of a panel. keys: (depth / group, 64, group) from the
/// first of them on; scores: row stride ld; fetch: as multiply_tile() takes it.
template <class Arch, std::size_t Rows, std::size_t Vectors, class E, class K, class Fetch>
[[gnu::noinline]] void score_tile(const E* queries, index_t query_stride, const K* keys,
                                  index_t depth, const Fetch& fetch, float* scores,
                                  index_t ld) noexcept {
  Accumulators<Arch, Rows, Vectors> acc;
  acc.clear();
  multiply_tile<Arch>(queries, query_stride, keys, panel_width, depth, fetch, acc);
  acc.store(scores, ld);
}

/// Scores of a row tile with the keys of one panel, columns [0, columns), a multiple of 16.
/// panel: (depth / group, 64, group); scores: row stride ld; fetch: of its first tile.
template <class Arch, std::size_t Rows, class E, class K, class Fetch>
[[gnu::always_inline]] inline void score_panel(const E* queries, index_t query_stride,
                                               const K* panel, index_t depth, index_t columns,
                                               const Fetch& fetch, float* scores, index_t ld) {
  for_each_column_tile<Arch, Rows>(columns, [&](auto vectors, index_t c) {
    const index_t tiles = c / column_of(GemmTile<Arch>::vectors_of(Rows));
    score_tile<Arch, Rows, vectors()>(queries, query_stride, panel + c * depth_group<K>, depth,
                                      fetch.after(tiles * runs_of_tile<Arch, K>(depth)), scores + c,
                                      ld);
  });
}

/// The last step of a row tile by matrix tiles: output = fma(output, factor of the row, products)
/// for `width` channels, a multiple of 16. products: row stride 64.
template <class Arch>
void add_scaled(const float* products, index_t rows, index_t width, const float* factor,
                float* output, index_t output_stride) noexcept {
  using V = simd::Floats<Arch>;
  for (index_t r = 0; r < rows; ++r) {
    const V scale(factor[r]);
    for (index_t c = 0; c < width; c += simd::lanes) {
      float* o = output + r * output_stride + c;
      fma(V::load(o), scale, V::load(products + r * panel_width + c)).store(o);
    }
  }
}

/// output = fma(output, factor of the row, weights x values) for 16 Vectors channels. weights:
/// (Rows, depth), row stride weight_stride; values: (depth / group, width, group) from the first
/// channel on.
template <class Arch, std::size_t Rows, std::size_t Vectors, class E, class K, class Fetch>
[[gnu::noinline]] void add_values_tile(const E* weights, index_t weight_stride, const K* values,
                                       index_t width, index_t depth, const Fetch& fetch,
                                       const float* factor, float* output,
                                       index_t output_stride) noexcept {
  using V = simd::Floats<Arch>;
  Accumulators<Arch, Rows, Vectors> acc;
  acc.clear();
  multiply_tile<Arch>(weights, weight_stride, values, width, depth, fetch, acc);
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    float* row = output + static_cast<index_t>(r) * output_stride;
    const V scale(factor[r]);
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      float* o = row + column_of(v);
      fma(V::load(o), scale, acc.sum[r][v]).store(o);
    }
  }
}

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
