// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// C += A^T B of two unpacked matrices with a common long dimension: gradients of weights.

#include "ropewalk/linalg/gemm.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

template <class Arch, class T, std::size_t Rows, std::size_t Vectors>
[[gnu::noinline]] void add_transposed_tile(const T* a, index_t lda, const T* b, index_t ldb,
                                           index_t depth, float* c, index_t ldc) noexcept {
  Accumulators<Arch, Rows, Vectors> acc;
  acc.load(c, ldc);
  multiply_tile<Arch, T>(a, TileStrides{depth_group<T>, lda * depth_group<T>}, b, ldb, depth,
                         nullptr, acc);
  acc.store(c, ldc);
}

}  // namespace detail

/// c[r][n] = fma chain over k ascending of a(k, r) * b(k, n), continued from c, so that it may be
/// called for one run of tokens after another: dW += dY^T X has the bits of one long product.
///
/// The other products of training are gemm() (activations) and gemm() with transposed(w) (gradients
/// of activations).
/// **Cost:** 2 * rows * columns * depth flops; A and B are not packed.
/// \param a (depth / group, rows, group), row stride lda elements of rows; group is depth_group<T>:
/// for bf16, tokens 2 k and 2 k + 1 side by side, odd ends padded with zeros
/// \param b (depth / group, columns padded to 16, group), row stride ldb
/// \param c (rows, columns padded to 16), row stride ldc
template <class Arch, class T>
void gemm_tn(const T* a, index_t lda, const T* b, index_t ldb, index_t rows, index_t columns,
             index_t depth, float* c, index_t ldc) noexcept {
  static_assert(std::is_same_v<simd::Multiplied<Arch, T>, T>,
                "this instruction set multiplies floats: widen bf16 operands first");
  constexpr std::size_t most = GemmTile<Arch>::vectors;
  constexpr index_t group = depth_group<T>;
  constexpr index_t block = gemm_depth<T> / 4;  // 64 columns of it are 32 KiB
  const index_t width = round_up(columns, lane_count);
  for (index_t n = 0; n < width; n += panel_width) {
    const index_t end = std::min(n + panel_width, width);
    for (index_t k = 0; k < depth; k += block) {
      const index_t count = std::min(block, depth - k);
      index_t column = n;
      const auto sweep = [&]<std::size_t Vectors>(std::integral_constant<std::size_t, Vectors>) {
        const T* from = b + k * ldb + column * group;
        detail::for_each_row_tile<Arch>(rows, [&](auto tile_rows, index_t row) {
          detail::add_transposed_tile<Arch, T, tile_rows(), Vectors>(
              a + k * lda + row * group, lda, from, ldb, count, c + row * ldc + column, ldc);
        });
        column += detail::column_of(Vectors);
      };
      while (column + detail::column_of(most) <= end) {
        sweep(std::integral_constant<std::size_t, most>{});
      }
      while (column < end) sweep(std::integral_constant<std::size_t, 1>{});
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
