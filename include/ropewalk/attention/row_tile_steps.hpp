// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Attention of rows over a block of keys in three phases by register tiles: all scores, weights,
/// products with values.

#include "ropewalk/attention/attention_call.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// All rows of a query block pass over 64 keys or values while these lie in the L1 cache; their
/// scores stay in the L2 cache.
template <class Arch, class T>
class RowTileSteps {
  using E = simd::Multiplied<Arch, T>;
  static constexpr bool widens = !std::is_same_v<E, T>;
  static constexpr index_t group = depth_group<T>;

 public:
  /// \param scores, wide memory of AttentionScratch
  RowTileSteps(index_t head_dim, float* scores, float* wide)
      : padded_(AttentionScratch{head_dim}.padded()),
        scores_(scores),
        wide_queries_(wide),
        wide_keys_(wide + AttentionScratch{head_dim}.rows()),
        wide_values_(wide_keys_ + AttentionScratch{head_dim}.wide_block()) {}

  void add(const AttentionBlock<T>& block) {
    const index_t depth = block.branch().panels.key_depth();
    num_tiles_ = 0;
    block.template for_each_tile<Arch>([&](const RowTile& tile) { tiles_[num_tiles_++] = tile; });
    if constexpr (widens) {
      for (index_t row = 0; row < block.rows.count; ++row) {
        simd::widen_swapped<Arch>(block.queries() + row * block.query_stride(), depth,
                                  wide_queries_ + row * padded_);
      }
      widen(block);
      score(block, wide_queries_, padded_, wide_keys_, depth);
    } else {
      score(block, block.queries(), block.query_stride(), block.key_panels(), depth);
    }
    weigh(block);
    for (index_t p = 0; p < block.call.branches[0].panels.num_value_panels(); ++p) {
      if constexpr (widens) {
        add_values(block, p, wide_values_ + p * panel_width * key_block);
      } else {
        add_values(block, p, block.values(p));
      }
    }
  }

 private:
  /// Panels of keys and values of a block as floats, the odd element of each pair first.
  void widen(const AttentionBlock<T>& block) {
    const index_t slot = block.slot(), count = block.keys.size();
    if (widened_.branch == block.range.branch && widened_.slot == slot && widened_.count >= count) {
      return;
    }
    widened_ = {block.range.branch, slot, count};
    const KeyValuePanels<T>& values = block.call.branches[0].panels;
    const index_t depth = values.key_depth(), pairs = (count + 1) / 2;
    simd::widen_panel<Arch>(block.key_panels(),
                            round_up(count, panel_width) / panel_width * depth / 2, panel_width,
                            wide_keys_);
    for (index_t p = 0; p < values.num_value_panels(); ++p) {
      simd::widen_panel<Arch>(block.values(p), pairs, values.value_width(p),
                              wide_values_ + p * panel_width * key_block);
    }
  }

  void score(const AttentionBlock<T>& block, const E* queries, index_t stride, const E* keys,
             index_t depth) {
    const bool streams =
        2 * block.segment().num_keys() * depth * static_cast<index_t>(sizeof(E)) > kept_bytes;
    index_t end = 0;
    for (index_t i = 0; i < num_tiles_; ++i) end = std::max(end, tiles_[i].seen.end);
    for (index_t c = 0; c < end; c += panel_width, keys += panel_width * depth) {
      for (index_t i = 0; i < num_tiles_; ++i) {
        const RowTile& tile = tiles_[i];
        const index_t columns = std::min(round_up(tile.seen.end, lane_count) - c, panel_width);
        if (columns <= 0 || tile.seen.begin >= c + panel_width) continue;
        // The next panel, a part of it during each tile.
        constexpr index_t column_tiles = panel_width / column_of(GemmTile<Arch>::vectors);
        const E* ahead = streams ? keys + panel_width * depth +
                                       i * column_tiles * fetched_elements<Arch, E>(depth)
                                 : nullptr;
        with_rows<Arch>(tile, [&](auto rows) {
          score_panel<Arch, E, rows()>(queries + tile.row * stride, stride, keys, depth, columns,
                                       ahead, scores_ + tile.row * score_stride + c, score_stride);
        });
      }
    }
  }

  void weigh(const AttentionBlock<T>& block) {
    for (index_t t = 0; t < num_tiles_; ++t) {
      const RowTile& tile = tiles_[t];
      VisibleColumns visible[GemmTile<Arch>::rows];
      for (index_t i = 0; i < tile.rows; ++i) {
        const index_t row = tile.row + i;
        visible[i] = block.template mask<Arch>(row, scores_ + row * score_stride, factor_[row]);
      }
      for (index_t i = 0; i < tile.rows; ++i) {
        const index_t row = tile.row + i;
        block.template weigh<Arch>(row, scores_ + row * score_stride, visible[i],
                                   block.weighed(tile));
      }
    }
  }

  /// values: of panel p, from the block's first key on
  void add_values(const AttentionBlock<T>& block, index_t p, const E* values) {
    constexpr index_t weight_stride = score_stride * (sizeof(float) / sizeof(E));
    const index_t width = block.call.branches[0].panels.value_width(p);
    for (index_t i = 0; i < num_tiles_; ++i) {
      const RowTile& tile = tiles_[i];
      const index_t first = tile.seen.begin / panel_width * panel_width;
      const E* weights = reinterpret_cast<const E*>(scores_ + tile.row * score_stride) + first;
      float* output = block.rows.output + tile.row * padded_ + p * panel_width;
      with_rows<Arch>(tile, [&](auto tile_rows) {
        for_each_column_tile<Arch>(width, [&](auto vectors, index_t c) {
          add_values_tile<Arch, E, tile_rows(), vectors()>(
              weights, weight_stride, values + first * width + c * depth_group<E>, width,
              round_up(tile.seen.end - first, group), factor_ + tile.row, output + c, padded_);
        });
      });
    }
  }

  index_t padded_;
  float* scores_;  ///< (rows, score_stride)
  float* wide_queries_;
  float* wide_keys_;
  float* wide_values_;
  struct Widened {  ///< what wide_keys_ and wide_values_ hold
    std::int32_t branch = -1;
    index_t slot = 0, count = 0;
  } widened_;
  float factor_[query_block];
  RowTile tiles_[query_block];
  index_t num_tiles_ = 0;
};

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
