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
  static constexpr index_t column_tiles = panel_width / column_of(GemmTile<Arch>::vectors);
  static constexpr index_t few_tiles = 4;
  static constexpr auto line_elements = static_cast<index_t>(storage_alignment / sizeof(T));

 public:
  /// \param scores, wide memory of AttentionScratch
  RowTileSteps(index_t head_dim, float* scores, float* wide)
      : padded_(AttentionScratch{head_dim}.padded()), scores_(scores), wide_queries_(wide) {}

  void add(const AttentionBlock<T>& block) {
    const index_t depth = block.branch().panels.key_depth();
    num_tiles_ = 0;
    block.template for_each_tile<Arch>([&](const RowTile& tile) { tiles_[num_tiles_++] = tile; });
    lines_ = num_tiles_ == 0 ? 0 : fetched_lines(block);
    if constexpr (widens) {
      for (index_t row = 0; row < block.rows.count; ++row) {
        simd::widen<Arch>(block.queries() + row * block.query_stride(), depth,
                          wide_queries_ + row * padded_);
      }
      score(block, wide_queries_, padded_, depth);
    } else {
      score(block, block.queries(), block.query_stride(), depth);
    }
    weigh(block);
    for (index_t p = 0; p < block.call.branches[0].panels.num_value_panels(); ++p) {
      add_values(block, p);
    }
  }

 private:
  /// Where keys and values come from beyond the L2 cache, tiles ask for those that come next: for
  /// the next panel of keys; a few tiles, which wait for memory more than they multiply, for the
  /// block's values, and with these for the next block's keys.
  /// \return lines that a tile asks for in a run of steps, or 0
  index_t fetched_lines(const AttentionBlock<T>& block) const {
    const index_t bytes = 2 * block.segment().num_keys() * block.branch().panels.key_depth() *
                          static_cast<index_t>(sizeof(T));
    constexpr index_t lines = 16;  // a full block of 16 row tiles has as many runs as a panel lines
    return bytes <= kept_bytes ? 0 : num_tiles_ <= few_tiles ? lines / num_tiles_ : 1;
  }

  void score(const AttentionBlock<T>& block, const E* queries, index_t stride, index_t depth) {
    const T* keys = block.key_panels();
    index_t end = 0;
    for (index_t i = 0; i < num_tiles_; ++i) end = std::max(end, tiles_[i].seen.end);
    for (index_t c = 0; c < end; c += panel_width, keys += panel_width * depth) {
      for (index_t i = 0; i < num_tiles_; ++i) {
        const RowTile& tile = tiles_[i];
        const index_t columns = std::min(round_up(tile.seen.end, lane_count) - c, panel_width);
        if (columns <= 0 || tile.seen.begin >= c + panel_width) continue;
        with_rows<Arch>(tile, [&](auto rows) {
          const auto score = [&](const auto& fetch) {
            score_panel<Arch, rows()>(queries + tile.row * stride, stride, keys, depth, columns,
                                      fetch, scores_ + tile.row * score_stride + c, score_stride);
          };
          const index_t runs = column_tiles * runs_of_tile<Arch, T>(depth);
          if (lines_ == 0) {
            score(FetchNothing{});
          } else if (lines_ == 1) {
            score(FetchLines{keys + panel_width * depth}.after(i * runs));
          } else {
            score(values_from(block, (c / panel_width * num_tiles_ + i) * runs * lines_));
          }
        });
      }
    }
  }
  /// Lines of the block's values from the given one on.
  FetchManyLines values_from(const AttentionBlock<T>& block, index_t line) const {
    const KeyValuePanels<T>& panels = block.call.branches[0].panels;
    const index_t of_panel = key_block * panel_width / line_elements;
    const index_t p = std::min(line / of_panel, panels.num_value_panels() - 1);
    return {block.values(p) + (line - p * of_panel) * line_elements, lines_};
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

  void add_values(const AttentionBlock<T>& block, index_t p) {
    constexpr index_t weight_stride = score_stride * (sizeof(float) / sizeof(E));
    const T* values = block.values(p);
    const index_t width = block.call.branches[0].panels.value_width(p);
    for (index_t i = 0; i < num_tiles_; ++i) {
      const RowTile& tile = tiles_[i];
      const index_t first = tile.seen.begin / panel_width * panel_width;
      const index_t keys = round_up(tile.seen.end - first, group);
      const E* weights = reinterpret_cast<const E*>(scores_ + tile.row * score_stride) + first;
      float* output = block.rows.output + tile.row * padded_ + p * panel_width;
      index_t runs = (p * num_tiles_ + i) * column_tiles * runs_of_tile<Arch, T>(keys);
      with_rows<Arch>(tile, [&](auto tile_rows) {
        for_each_column_tile<Arch, tile_rows()>(width, [&](auto vectors, index_t c) {
          const auto add = [&](const auto& fetch) {
            add_values_tile<Arch, tile_rows(), vectors()>(
                weights, weight_stride, values + first * width + c * group, width, keys, fetch,
                factor_ + tile.row, output + c, padded_);
          };
          if (lines_ > 1) {
            const T* next = block.key_panels() + key_block * block.branch().panels.key_depth();
            add(FetchManyLines{next, lines_}.after(runs));
            runs += runs_of_tile<Arch, T>(keys);
          } else {
            add(FetchNothing{});
          }
        });
      });
    }
  }

  index_t padded_;
  float* scores_;        ///< (rows, score_stride)
  float* wide_queries_;  ///< (rows, padded), where T is widened
  float factor_[query_block];
  RowTile tiles_[query_block];
  index_t num_tiles_ = 0;
  index_t lines_ = 0;  ///< fetched_lines()
};

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
