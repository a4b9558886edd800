// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The products of attention's gradient, by register tiles or by matrix tiles.

#include <algorithm>
#include <type_traits>

#include "ropewalk/attention/row_tiles.hpp"
#include "ropewalk/simd/matrix_tiles.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// c += A B for `columns` columns, at most the tile's. Where element (r, k) of A lies: `strides`;
/// b: (depth / group, ldb, group). The chains of fma continue from c.
template <class Arch, std::size_t Rows, std::size_t Vectors, class A, class B>
[[gnu::noinline]] void continue_chain_tile(const A* a, TileStrides strides, const B* b, index_t ldb,
                                           index_t depth, float* c, index_t ldc,
                                           index_t columns) noexcept {
  using V = simd::Floats<Arch>;
  Accumulators<Arch, Rows, Vectors> acc;
  if (columns >= column_of(Vectors)) {
    acc.load(c, ldc);
    multiply_tile<Arch>(a, strides, b, ldb, depth, FetchNothing{}, acc);
    return acc.store(c, ldc);
  }
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      acc.sum[r][v] = V::load_part(c + static_cast<index_t>(r) * ldc + column_of(v),
                                   std::max<index_t>(columns - column_of(v), 0));
    }
  }
  multiply_tile<Arch>(a, strides, b, ldb, depth, FetchNothing{}, acc);
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      acc.sum[r][v].store_part(c + static_cast<index_t>(r) * ldc + column_of(v),
                               std::max<index_t>(columns - column_of(v), 0));
    }
  }
}

/// Of operands stored as T, whose left ones are Elements.
template <class Arch, class T>
class RowTileProducts {
 public:
  using Element = simd::Multiplied<Arch, T>;
  /// Elements along a sum that are added together.
  static constexpr index_t together = depth_group<T>;

  /// scores = rows x panel for the first `columns` of its 64 columns, a multiple of 16.
  void score(const Element* rows, index_t ld, index_t count, const T* panel, index_t depth,
             index_t columns, float* scores, index_t lds) {
    with_rows<Arch>({.rows = count, .seen = {}}, [&](auto tile_rows) {
      score_panel<Arch, tile_rows()>(rows, ld, panel, depth, columns, FetchNothing{}, scores, lds);
    });
  }
  /// c += A B for the rows of a row tile and any columns.
  template <class B>
  void add(const Element* a, TileStrides strides, index_t rows, const B* b, index_t ldb,
           index_t depth, float* c, index_t ldc, index_t columns) {
    with_rows<Arch>({.rows = rows, .seen = {}}, [&](auto tile_rows) {
      for_each_column_tile<Arch>(
          round_up(columns, simd::lanes), [&](auto vectors, index_t first)
                                              __attribute__((always_inline)) {
                                                continue_chain_tile<Arch, tile_rows(), vectors()>(
                                                    a, strides, b + first * depth_group<B>, ldb,
                                                    depth, c + first, ldc, columns - first);
                                              });
    });
  }
  /// Ends a run of products: c and scores have been written.
  void store() {}
};

/// The same by matrix tiles, of up to 32 rows: a left operand's elements along a sum are
/// neighbours, and sums are groups of 32.
template <class Arch, class T>
class MatrixTileProducts {
 public:
  using Element = T;
  static constexpr index_t together = simd::tile_depth;

  void score(const T* rows, index_t ld, index_t count, const T* panel, index_t depth,
             index_t columns, float* scores, index_t lds) {
    tiles_.multiply(rows, ld, count, panel, panel_width, columns, depth, false, scores, lds);
  }
  void add(const T* a, TileStrides strides, index_t rows, const T* b, index_t ldb, index_t depth,
           float* c, index_t ldc, index_t columns) {
    if (columns % simd::lanes == 0) {
      tiles_.multiply(a, strides.row, rows, b, ldb, columns, depth, true, c, ldc);
      return;
    }
    // What lies beside these columns is not to be written.
    alignas(storage_alignment) float sums[simd::tile_block * panel_width] = {};
    tiles_.store();
    for (index_t r = 0; r < rows; ++r) {
      std::copy_n(c + r * ldc, columns, sums + r * panel_width);
    }
    tiles_.multiply(a, strides.row, rows, b, ldb, round_up(columns, simd::lanes), depth, true, sums,
                    panel_width);
    tiles_.store();
    for (index_t r = 0; r < rows; ++r) {
      std::copy_n(sums + r * panel_width, columns, c + r * ldc);
    }
  }
  void store() { tiles_.store(); }

 private:
  simd::MatrixTiles<Arch> tiles_;
};

template <class Arch, class T>
using BackwardProducts = std::conditional_t<simd::takes_matrix_tiles<Arch, T>,
                                            MatrixTileProducts<Arch, T>, RowTileProducts<Arch, T>>;

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
