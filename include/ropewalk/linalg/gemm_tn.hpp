// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// C += A^T B of two unpacked matrices with a common long dimension: gradients of weights.

#include "ropewalk/linalg/gemm.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Rows of A and B that the caller of gemm_tn() multiplies next. They are fetched meanwhile, since
/// a tile reads a few elements of each row, of which no processor guesses the next.
struct NextRows {
  const void* a = nullptr;  ///< lines, one after the other
  index_t a_lines = 0;
  const float* b = nullptr;  ///< the first 64 columns
  index_t ldb = 0;
  index_t b_rows = 0;
};

namespace detail {

/// A line of a, and 16 columns of b, in each run of steps.
struct FetchRows {
  static constexpr bool with_every_step = false;
  NextRows rows;
  index_t runs;  ///< before the tile

  [[gnu::always_inline]] void operator()(index_t i) const {
    const index_t line = runs + i;
    FetchLines{rows.a}(line);
    __builtin_prefetch(rows.b + line / 4 * rows.ldb + line % 4 * lane_count, 0, 2);
  }
  FetchRows next(index_t more) const { return {rows, runs + more}; }
};

/// A run of tiles, one below the other. fetch: of the first.
template <class Arch, class T, std::size_t Rows, std::size_t Vectors, class Fetch>
[[gnu::noinline]] void add_transposed_tiles(index_t tiles, const T* a, index_t lda, const T* b,
                                            index_t ldb, index_t depth, float* c, index_t ldc,
                                            Fetch fetch) noexcept {
  constexpr auto rows = static_cast<index_t>(Rows);
  for (; tiles > 0; --tiles, a += rows * depth_group<T>, c += rows * ldc) {
    Accumulators<Arch, Rows, Vectors> acc;
    acc.load(c, ldc);
    multiply_tile<Arch>(a, TileStrides{depth_group<T>, lda * depth_group<T>}, b, ldb, depth, fetch,
                        acc);
    acc.store(c, ldc);
    fetch = fetch.next(runs_of_tile<Arch, T>(depth));
  }
}

}  // namespace detail

/// c[r][n] = fma chain over k ascending of a(k, r) * b(k, n), continued from c, so that it may be
/// called for one run of tokens after another: dW += dY^T X has the bits of one long product.
///
/// The other products of training are gemm() (activations) and gemm() with transposed(w) (gradients
/// of activations).
/// **Cost:** 2 * rows * columns * depth flops; A and B are not packed, so keep depth times columns
/// within the L1 cache.
/// \param a (depth / group, rows, group), row stride lda elements of rows; group is depth_group<T>:
/// for bf16, tokens 2 k and 2 k + 1 side by side, odd ends padded with zeros
/// \param b (depth / group, columns padded to 16, group), row stride ldb
/// \param c (rows, columns padded to 16), row stride ldc
template <class Arch, class T>
void gemm_tn(const T* a, index_t lda, const T* b, index_t ldb, index_t rows, index_t columns,
             index_t depth, float* c, index_t ldc, const NextRows& next = {}) noexcept {
  static_assert(std::is_same_v<simd::Multiplied<Arch, T>, T>,
                "this instruction set multiplies floats: widen bf16 operands first");
  constexpr index_t group = depth_group<T>;
  const index_t runs_of_one = std::max<index_t>(detail::runs_of_tile<Arch, T>(depth), 1);
  const index_t fetching = std::max(next.a_lines, 4 * next.b_rows);  // runs that have a line to ask
  index_t runs = 0;                                                  // so far
  detail::for_each_column_tile<Arch>(round_up(columns, lane_count), [&](auto vectors,
                                                                        index_t column) {
    const T* from = b + column * group;
    detail::for_each_run_of_row_tiles<Arch>(rows, [&](auto tile_rows, index_t row, index_t tiles) {
      const auto add = [&](index_t first, index_t count, const auto& fetch) {
        const index_t r = row + first * static_cast<index_t>(tile_rows());
        detail::add_transposed_tiles<Arch, T, tile_rows(), vectors()>(
            count, a + r * group, lda, from, ldb, depth, c + r * ldc + column, ldc, fetch);
      };
      const index_t left = std::max<index_t>(fetching - runs, 0);
      const index_t asking = std::min(tiles, (left + runs_of_one - 1) / runs_of_one);
      if (asking > 0) add(0, asking, detail::FetchRows{next, runs});
      if (asking < tiles) add(asking, tiles - asking, detail::FetchNothing{});
      runs += tiles * runs_of_one;
    });
  });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
