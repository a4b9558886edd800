// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Row operations of a Llama: RMSNorm and SwiGLU.

#include <cmath>
#include <limits>

#include "ropewalk/linalg/packed_matrix.hpp"
#include "ropewalk/simd/math.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// y = x / sqrt(mean(x^2) + eps) * weight, row by row (arXiv:1910.07467). x, y: (rows, size), row
/// strides ldx, ldy; weight: (size); y is padded with zeros to a multiple of 16. x and y may alias.
/// A row whose sum of squares is not finite becomes NaN.
///
/// **Error:** 4 units of 2^-24 relative per element; the sum of squares is 16 lanes and a tree.
template <class Arch>
void rmsnorm(const float* x, index_t ldx, index_t rows, index_t size, const float* weight,
             double eps, float* y, index_t ldy) noexcept {
  using V = simd::Floats<Arch>;
  for (index_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
    V squares(0.0f);
    for (index_t i = 0; i < size; i += simd::lanes) {
      const V v = V::load_part(x + i, size - i);
      squares = fma(v, v, squares);
    }
    const double mean = static_cast<double>(tree_sum(squares)) / static_cast<double>(size);
    // An overflowed sum would scale the row to zeros and pass for a finite result: NaN shows.
    constexpr auto largest = static_cast<double>(std::numeric_limits<float>::max());
    const double scale_or_nan =
        mean <= largest ? 1 / std::sqrt(mean + eps) : std::numeric_limits<double>::quiet_NaN();
    const V scale(static_cast<float>(scale_or_nan));
    for (index_t i = 0; i < size; i += simd::lanes) {
      const V v = V::load_part(x + i, size - i) * scale;
      (v * V::load_part(weight + i, size - i)).store(y + i);
    }
  }
}

/// gate = silu(gate) * up, silu(g) = g / (1 + e^-g) (arXiv:2002.05202). (rows, size) each, row
/// stride ld, size a multiple of 16 (padding stays zero).
template <class Arch>
void swiglu(float* gate, const float* up, index_t ld, index_t rows, index_t size) noexcept {
  using V = simd::Floats<Arch>;
  for (index_t r = 0; r < rows; ++r, gate += ld, up += ld) {
    for (index_t i = 0; i < size; i += simd::lanes) {
      const V g = V::load(gate + i);
      const V silu = g / (V(1.0f) + simd::exp(V(0.0f) - g));
      (silu * V::load(up + i)).store(gate + i);
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
