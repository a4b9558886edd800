// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Attention of rows over a block of keys in three phases by matrix tiles: all scores, weights,
/// products with values.

#include "ropewalk/attention/attention_call.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// As RowTileSteps, in row tiles of 32. Weights are not made beside products: vector stores and the
/// loads of matrix tiles that follow them share the ends of their addresses too often, and wait for
/// each other (benchmarks/README.md).
template <class Arch, class T>
class MatrixTileSteps {
 public:
  /// \param scores memory of AttentionScratch
  MatrixTileSteps(index_t head_dim, float* scores, float* /*wide*/)
      : padded_(AttentionScratch{head_dim}.padded()), scores_(scores) {}

  void add(const AttentionBlock<T>& block) {
    num_tiles_ = 0;
    block.template for_each_tile<Arch>([&](const RowTile& tile) { tiles_[num_tiles_++] = tile; });
    score(block);
    for (index_t i = 0; i < num_tiles_; ++i) weigh(block, tiles_[i]);
    for (index_t i = 0; i < num_tiles_; ++i) add_values(block, tiles_[i]);
  }

 private:
  float* scores_of(index_t row) const { return scores_ + row * score_stride; }

  void score(const AttentionBlock<T>& block) {
    const index_t depth = block.branch().panels.key_depth(), ld = block.query_stride();
    for (index_t c = 0; c < block.keys.size(); c += panel_width) {
      for (index_t i = 0; i < num_tiles_; ++i) {
        const RowTile& tile = tiles_[i];
        const index_t columns = std::min(round_up(tile.seen.end, lane_count) - c, panel_width);
        if (columns <= 0 || tile.seen.begin >= c + panel_width) continue;
        matrix_tiles_.multiply(block.queries() + tile.row * ld, ld, tile.rows,
                               block.key_panels() + c * depth, panel_width, columns, depth, false,
                               scores_of(tile.row) + c, score_stride);
      }
    }
    matrix_tiles_.store();
  }

  void weigh(const AttentionBlock<T>& block, const RowTile& tile) {
    VisibleColumns visible[most_tile_rows<Arch, T>];
    for (index_t i = 0; i < tile.rows; ++i) {
      const index_t row = tile.row + i;
      visible[i] = block.template mask<Arch>(row, scores_of(row), factor_[row]);
    }
    for (index_t i = 0; i < tile.rows; ++i) {
      const index_t row = tile.row + i;
      block.template weigh<Arch>(row, scores_of(row), visible[i], block.weighed(tile));
    }
  }

  /// output = fma(output, factor of the row, weights x values)
  void add_values(const AttentionBlock<T>& block, const RowTile& tile) {
    constexpr index_t weight_stride = score_stride * (sizeof(float) / sizeof(T));
    const KeyValuePanels<T>& panels = block.call.branches[0].panels;
    const Interval columns = block.weighed(tile);
    const T* weights = reinterpret_cast<const T*>(scores_of(tile.row)) + columns.begin;
    alignas(storage_alignment) float products[most_tile_rows<Arch, T> * panel_width];
    for (index_t p = 0; p < panels.num_value_panels(); ++p) {
      const index_t width = panels.value_width(p);
      matrix_tiles_.multiply(weights, weight_stride, tile.rows,
                             block.values(p) + columns.begin * width, width, width, columns.size(),
                             false, products, panel_width);
      matrix_tiles_.store();
      add_scaled<Arch>(products, tile.rows, width, factor_ + tile.row,
                       block.rows.output + tile.row * padded_ + p * panel_width, padded_);
    }
  }

  index_t padded_;
  float* scores_;  ///< (rows, score_stride), then weights
  float factor_[query_block];
  RowTile tiles_[query_block];
  index_t num_tiles_ = 0;
  simd::MatrixTiles<Arch> matrix_tiles_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
