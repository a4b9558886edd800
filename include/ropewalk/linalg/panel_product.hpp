// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// PanelProduct: the product of some rows with one panel of a packed matrix, and its epilogue.

#include <algorithm>
#include <concepts>
#include <utility>

#include "ropewalk/linalg/tile.hpp"
#include "ropewalk/simd/matrix_tiles.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Finishes elements of a row of a product: epilogue(row, column, sums) for the 16 of columns
/// column .. column + 15, or for an array of as many vectors as a tile has, which follow each
/// other. May have fetch(row, column), which asks for the memory that those 16 will go to: it is
/// called before their sums are computed, so that no write waits for memory.
template <class E, class Arch>
concept GemmEpilogue = std::invocable<const E&, index_t, index_t, simd::Floats<Arch>> ||
                       std::invocable < const E&,
        index_t, index_t, simd::Floats<Arch>(&)
[GemmTile<Arch>::vectors] > ;

/// Rows of A that pass over a panel together: the panel is read from the L2 cache this often less,
/// and their partial sums fit on the stack.
inline constexpr index_t gemm_rows = 96;
/// The same for products of operands of T by Arch: matrix tiles would else read panels faster than
/// the L3 cache gives them.
template <class Arch, class T>
inline constexpr index_t rows_at_once = simd::takes_matrix_tiles<Arch, T> ? 192 : gemm_rows;

/// Depth of a block of a product: 64 columns of it stay in the L2 cache beside the rows of A.
/// Longer sums are continued from block to block.
template <class T>
inline constexpr index_t gemm_depth = 512 * depth_group<T>;

/// The same for products by matrix tiles: 64 columns of it stay in the L1 cache.
inline constexpr index_t matrix_tile_depth = 256;

namespace detail {

/// Hands the sums of neighbouring columns of a row to an epilogue, all or 16 at a time.
template <class Arch, std::size_t Vectors, class Epilogue>
[[gnu::always_inline]] inline void finish_row(const Epilogue& epilogue, index_t row, index_t column,
                                              simd::Floats<Arch> (&sums)[Vectors]) {
  if constexpr (std::invocable<const Epilogue&, index_t, index_t, simd::Floats<Arch>>) {
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) epilogue(row, column + column_of(v), sums[v]);
  } else {
    epilogue(row, column, sums);
  }
}

/// A run of tiles, one below the other: Rows rows of A each, continued from `partial` and back to
/// it (row stride 64). In one function, so that what holds for all is done once. fetch: of the
/// first.
template <class Arch, std::size_t Rows, std::size_t Vectors, class A, class B, class Fetch>
[[gnu::noinline]] void continue_tiles(index_t tiles, const A* a, index_t lda, const B* b,
                                      index_t ldb, index_t depth, Fetch fetch, float* partial,
                                      bool first) noexcept {
  constexpr auto rows = static_cast<index_t>(Rows);
  for (; tiles > 0; --tiles, a += rows * lda, partial += rows * panel_width) {
    Accumulators<Arch, Rows, Vectors> acc;
    if (first) {
      acc.clear();
    } else {
      acc.load(partial, panel_width);
    }
    multiply_tile<Arch>(a, lda, b, ldb, depth, fetch, acc);
    acc.store(partial, panel_width);
    fetch = fetch.next(runs_of_tile<Arch, B>(depth));
  }
}

/// The same in the last block: continued from `partial` unless that is null, then finished.
template <class Arch, std::size_t Rows, std::size_t Vectors, class A, class B, class Fetch,
          class Epilogue>
[[gnu::noinline]] void finish_tiles(index_t tiles, const A* a, index_t lda, const B* b, index_t ldb,
                                    index_t depth, Fetch fetch, const float* partial, index_t row,
                                    index_t column, const Epilogue& given) noexcept {
  constexpr auto rows = static_cast<index_t>(Rows);
  const Epilogue epilogue = given;  // a copy, which stores of floats cannot change
  for (; tiles > 0; --tiles, a += rows * lda, row += rows) {
    Accumulators<Arch, Rows, Vectors> acc;
    if (partial == nullptr) {
      acc.clear();
    } else {
      acc.load(partial, panel_width);
      partial += rows * panel_width;
    }
    if constexpr (requires { epilogue.fetch(row, column); }) {
      ROPEWALK_UNROLL
      for (std::size_t r = 0; r < Rows; ++r) {
        ROPEWALK_UNROLL
        for (std::size_t v = 0; v < Vectors; ++v) {
          epilogue.fetch(row + static_cast<index_t>(r), column + column_of(v));
        }
      }
    }
    multiply_tile<Arch>(a, lda, b, ldb, depth, fetch, acc);
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      finish_row<Arch>(epilogue, row + static_cast<index_t>(r), column, acc.sum[r]);
    }
    fetch = fetch.next(runs_of_tile<Arch, B>(depth));
  }
}

/// One block of a product along its depth.
template <class A, class B>
struct DepthBlock {
  const A* a;  ///< (rows, depth), row stride lda
  index_t lda;
  index_t rows;  ///< at most gemm_rows
  const B* b;    ///< (depth, width)
  index_t width;
  index_t depth;
  bool first, last;  ///< of the product's blocks
  const B* ahead;    ///< what is read next; or null, where the next rows of A are fetched instead
};

/// The block's products in columns of tiles that are as wide as those of Rows rows.
template <class Arch, std::size_t Rows, class A, class B, class Epilogue>
void multiply_columns(const DepthBlock<A, B>& block, float* partial, const Epilogue& epilogue) {
  index_t runs = 0;  // of tiles so far
  for_each_column_tile<Arch, Rows>(block.width, [&](auto vectors, index_t column) {
    constexpr std::size_t Vectors = vectors();
    const B* b = block.b + column * depth_group<B>;
    for_each_run_of_row_tiles<Arch, Rows>(block.rows, [&](auto rows, index_t row, index_t tiles) {
      constexpr std::size_t R = rows();
      const A* a = block.a + row * block.lda;
      float* sums = partial + row * panel_width + column;
      const auto multiply = [&](const auto& fetch) {
        if (block.last) {
          finish_tiles<Arch, R, Vectors>(tiles, a, block.lda, b, block.width, block.depth, fetch,
                                         block.first ? nullptr : sums, row, column, epilogue);
        } else {
          continue_tiles<Arch, R, Vectors>(tiles, a, block.lda, b, block.width, block.depth, fetch,
                                           sums, block.first);
        }
      };
      if (block.ahead != nullptr) {
        multiply(FetchLines{block.ahead}.after(runs));
        runs += tiles * runs_of_tile<Arch, B>(block.depth);
      } else if constexpr (GemmTile<Arch>::fetches_rows && std::is_same_v<A, B>) {
        const index_t below = index_t{R} * block.lda;
        multiply(FetchRowsBelow<R>{a + below, below * static_cast<index_t>(sizeof(A))});
      } else {
        multiply(FetchNothing{});
      }
    });
  });
}

template <class Arch, class A, class B, class Epilogue>
void multiply_block(const DepthBlock<A, B>& block, float* partial, const Epilogue& epilogue) {
  constexpr std::size_t full = GemmTile<Arch>::rows;
  if constexpr (GemmTile<Arch>::vectors_of(1) != GemmTile<Arch>::vectors) {
    if (block.rows == 1) return multiply_columns<Arch, 1>(block, partial, epilogue);
    if (block.rows == 2) return multiply_columns<Arch, 2>(block, partial, epilogue);
  }
  multiply_columns<Arch, full>(block, partial, epilogue);
}

/// Rows of sums that lie in memory and wait for their epilogue.
struct WaitingRows {
  float* sums = nullptr;  ///< row stride panel_width
  index_t row = 0, rows = 0;
};

/// The next `count` of them, `width` columns. The copy of the epilogue cannot be changed by its own
/// stores.
template <class Arch, class Epilogue>
[[gnu::noinline]] void finish_rows(WaitingRows& waiting, index_t count, index_t width,
                                   const Epilogue& given) noexcept {
  const Epilogue epilogue = given;
  for (count = std::min(count, waiting.rows); count > 0; --count) {
    for_each_column_tile<Arch>(width, [&](auto vectors, index_t column) {
      constexpr std::size_t Vectors = vectors();
      simd::Floats<Arch> sums[Vectors];
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) {
        sums[v] = simd::Floats<Arch>::load(waiting.sums + column + column_of(v));
      }
      finish_row<Arch>(epilogue, waiting.row, column, sums);
    });
    waiting.sums += panel_width;
    ++waiting.row;
    --waiting.rows;
  }
}

/// For what takes no matrix tiles.
struct NoMatrixTiles {};

}  // namespace detail

/// Visits products of A (rows, depth) and panels of packed B (PackedMatrix::panel):
/// epilogue(row, column, sums) for 16 columns at a time, where column counts from the panel's start
/// and sums[i] is the fma chain over k ascending (of bf16 pairs, the odd element first; by matrix
/// tiles as simd/matrix_tiles.hpp says). One for the products of a kernel call: while it lives, the
/// thread is set up for operands of T; epilogues see subnormals of bf16 products as zeros, on every
/// set.
template <class Arch, class T>
class PanelProduct {
  static constexpr bool by_matrix_tiles = simd::takes_matrix_tiles<Arch, T>;

 public:
  /// **Cost:** 2 * rows * depth * width flops.
  /// \param rows at most rows_at_once \param depth a multiple of depth_group<T>
  /// \param next what the caller will multiply with next, fetched meanwhile; or null where that is
  /// in the L2 cache
  template <GemmEpilogue<Arch> Epilogue>
  void operator()(const T* a, index_t lda, index_t rows, const T* panel, index_t width,
                  index_t depth, const Epilogue& epilogue, const T* next = nullptr) {
    alignas(storage_alignment) float partial[rows_at_once<Arch, T> * panel_width];
    if constexpr (by_matrix_tiles) {
      multiply_by_tiles({a, lda, rows, panel, width, depth}, partial, epilogue);
    } else {
      using Left = simd::Multiplied<Arch, T>;
      constexpr bool widens = !std::is_same_v<Left, T>;
      constexpr index_t most = widens ? gemm_depth<float> : gemm_depth<T>;
      constexpr index_t ldw = widens ? spread_stride(most) : 0;
      alignas(storage_alignment) float wide[static_cast<std::size_t>(widens ? gemm_rows * ldw : 1)];
      index_t k = 0;
      do {
        const index_t block = std::min(most, depth - k);
        const bool last = k + block == depth;
        const T* ahead = width < panel_width ? nullptr : last ? next : panel + (k + block) * width;
        const auto multiply = [&](const Left* left, index_t ld) {
          detail::multiply_block<Arch>(
              detail::DepthBlock<Left, T>{left, ld, rows, panel + k * width, width, block, k == 0,
                                          last, ahead},
              partial, epilogue);
        };
        if constexpr (widens) {
          for (index_t r = 0; r < rows; ++r) {
            simd::widen<Arch>(a + r * lda + k, block, wide + r * ldw);
          }
          multiply(wide, ldw);
        } else {
          multiply(a + k, lda);
        }
        k += block;
      } while (k < depth);
    }
  }

 private:
  struct Operands {
    const T* a;
    index_t lda, rows;
    const T* panel;
    index_t width, depth;
  };

  /// A block of the panel and 32 rows of A stay in the L1 cache. Epilogues are done with the
  /// products of the next rows: neither waits for the other.
  template <class Epilogue>
  void multiply_by_tiles(const Operands& o, float* partial, const Epilogue& epilogue) {
    detail::WaitingRows waiting;
    const index_t blocks = (o.width + simd::tile_block - 1) / simd::tile_block;
    for (index_t k = 0; k < o.depth; k += matrix_tile_depth) {
      const index_t block = std::min(matrix_tile_depth, o.depth - k);
      const index_t groups = (block + simd::tile_depth - 1) / simd::tile_depth * blocks;
      const index_t at_once = (simd::tile_block + groups - 1) / groups;
      for (index_t r = 0; r < o.rows; r += simd::tile_block) {
        const index_t rows = std::min(simd::tile_block, o.rows - r);
        float* sums = partial + r * panel_width;
        tiles_.multiply(
            o.a + r * o.lda + k, o.lda, rows, o.panel + k * o.width, o.width, o.width, block, k > 0,
            sums, panel_width, [&]() __attribute__((always_inline)) {
              if (waiting.rows == 0) return;
              detail::finish_rows<Arch>(waiting, at_once, o.width, epilogue);
            });
        detail::finish_rows<Arch>(waiting, waiting.rows, o.width, epilogue);
        if (k + block == o.depth) waiting = {sums, r, rows};
      }
    }
    tiles_.store();
    detail::finish_rows<Arch>(waiting, waiting.rows, o.width, epilogue);
  }

  const simd::FlushSubnormals flush_{std::is_same_v<T, bf16>};
  [[no_unique_address]] std::conditional_t<by_matrix_tiles, simd::MatrixTiles<Arch>,
                                           detail::NoMatrixTiles>
      tiles_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
