// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Row operations of a Llama: RMSNorm, and rounding to bf16.

#include <cmath>
#include <limits>

#include "ropewalk/linalg/packed_matrix.hpp"
#include "ropewalk/simd/pairs.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// rmsnorm() of Rows rows, whose sums go step by step together: each alone would wait for itself.
template <class Arch, std::size_t Rows, class T>
[[gnu::always_inline]] inline void rmsnorm_rows(const float* x, index_t ldx, index_t size,
                                                const float* weight, double eps, float factor, T* y,
                                                index_t ldy) {
  using V = simd::Floats<Arch>;
  const auto at = [](std::size_t r, index_t ld) { return static_cast<index_t>(r) * ld; };
  V squares[Rows], scale[Rows];
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) squares[r] = V(0.0f);
  for (index_t i = 0; i < size; i += simd::lanes) {
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      const V v = V::load_part(x + at(r, ldx) + i, size - i);
      squares[r] = fma(v, v, squares[r]);
    }
  }
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    const double mean = static_cast<double>(tree_sum(squares[r])) / static_cast<double>(size);
    // An overflowed sum would scale the row to zeros and pass for a finite result: NaN shows.
    constexpr auto largest = static_cast<double>(std::numeric_limits<float>::max());
    const double scale_or_nan =
        mean <= largest ? 1 / std::sqrt(mean + eps) : std::numeric_limits<double>::quiet_NaN();
    scale[r] = V(static_cast<float>(scale_or_nan));
  }
  for (index_t i = 0; i < size; i += simd::lanes) {
    const V w = V::load_part(weight + i, size - i);
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      const V v = V::load_part(x + at(r, ldx) + i, size - i) * scale[r];
      simd::store_rounded<Arch>(y + at(r, ldy) + i, v * w * V(factor));
    }
  }
}

}  // namespace detail

/// y = x / sqrt(mean(x^2) + eps) * weight, row by row (arXiv:1910.07467). x, y: (rows, size), row
/// strides ldx, ldy; weight: (size); y is padded with zeros to a multiple of 16 and rounded to T. x
/// and a y of floats may alias. `factor` multiplies y last, as the units of a softmax need it. A
/// row whose sum of squares is not finite becomes NaN.
///
/// **Error:** 4 units of 2^-24 relative per element; the sum of squares is 16 lanes and a tree.
template <class Arch, class T>
void rmsnorm(const float* x, index_t ldx, index_t rows, index_t size, const float* weight,
             double eps, float factor, T* y, index_t ldy) noexcept {
  constexpr index_t together = 4;
  index_t r = 0;
  for (; r + together <= rows; r += together) {
    detail::rmsnorm_rows<Arch, together>(x + r * ldx, ldx, size, weight, eps, factor, y + r * ldy,
                                         ldy);
  }
  for (; r < rows; ++r) {
    detail::rmsnorm_rows<Arch, 1>(x + r * ldx, ldx, size, weight, eps, factor, y + r * ldy, ldy);
  }
}

/// y = x rounded to bf16, row by row. x, y: (rows, size), row strides ldx, ldy; y is padded with
/// zeros to a multiple of 16, and so to whole pairs.
template <class Arch>
void round_rows(const float* x, index_t ldx, index_t rows, index_t size, bf16* y,
                index_t ldy) noexcept {
  using V = simd::Floats<Arch>;
  for (index_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
    for (index_t i = 0; i < size; i += simd::lanes) {
      simd::store_rounded<Arch>(y + i, V::load_part(x + i, size - i));
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
