// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// C += A^T B of two unpacked matrices with a common long dimension: gradients of weights.

#include "ropewalk/linalg/gemm.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Rows of A and B that the caller of gemm_tn() multiplies next. They are fetched meanwhile, since
/// a tile reads a few elements of each row, of which no processor guesses the next.
struct NextRows {
  const float* a = nullptr;  ///< lines of 16 elements, one after the other
  index_t a_lines = 0;
  const float* b = nullptr;  ///< row stride as B's, the first 64 columns
  index_t b_rows = 0;
};

namespace detail {

/// A line of a, and 16 columns of b, in each run of steps.
struct FetchRows {
  static constexpr bool with_every_step = false;
  const float* a;
  const float* b;
  index_t ldb;

  [[gnu::always_inline]] void operator()(index_t i) const {
    __builtin_prefetch(a + i * lane_count, 0, 2);
    __builtin_prefetch(b + i / 4 * ldb + i % 4 * lane_count, 0, 2);
  }
};

template <class Arch, class T, std::size_t Rows, std::size_t Vectors, class Fetch>
[[gnu::noinline]] void add_transposed_tile(const T* a, index_t lda, const T* b, index_t ldb,
                                           index_t depth, float* c, index_t ldc,
                                           const Fetch& fetch) noexcept {
  Accumulators<Arch, Rows, Vectors> acc;
  acc.load(c, ldc);
  multiply_tile<Arch>(a, TileStrides{depth_group<T>, lda * depth_group<T>}, b, ldb, depth, fetch,
                      acc);
  acc.store(c, ldc);
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
  index_t fetched = 0;  // runs of steps so far
  detail::for_each_column_tile<Arch>(
      round_up(columns, lane_count), [&](auto vectors, index_t column) {
        const T* from = b + column * group;
        detail::for_each_row_tile<Arch>(rows, [&](auto tile_rows, index_t row) {
          const auto add = [&](const auto& fetch) {
            detail::add_transposed_tile<Arch, T, tile_rows(), vectors()>(
                a + row * group, lda, from, ldb, depth, c + row * ldc + column, ldc, fetch);
          };
          if (fetched < next.a_lines || fetched < 4 * next.b_rows) {
            add(detail::FetchRows{next.a + std::min(fetched, next.a_lines) * lane_count,
                                  next.b + std::min(fetched / 4, next.b_rows) * ldb, ldb});
          } else {
            add(detail::FetchNothing{});
          }
          fetched += detail::runs_of_tile<Arch, T>(depth);
        });
      });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
