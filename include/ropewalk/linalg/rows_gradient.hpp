// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Gradients of a Llama's row operations: RMSNorm and SwiGLU's product.

#include <algorithm>
#include <cmath>

#include "ropewalk/linalg/rows.hpp"
#include "ropewalk/linalg/tile.hpp"
#include "ropewalk/simd/math.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Gradient of y = rmsnorm(x) with respect to x, row by row, added to what flows past the norm.
/// With s = 1 / sqrt(mean(x^2) + eps) and g the norm's weight:
///
///     dx = past + s (g dy) - x s^3 / size * sum_i x_i g_i dy_i
///
/// x, dy, past, dx: (rows, size), row strides as given; dx may be past or dy. What pads dx to a
/// multiple of 16 becomes zero. inverse_rms: (rows), gets s.
///
/// **Error:** 8 units of 2^-24 of |past| + s |g dy| + the last term (tests/linalg).
/// **Source:** arXiv:1910.07467
template <class Arch>
void rmsnorm_gradient(const float* x, index_t ldx, index_t rows, index_t size, const float* weight,
                      double eps, const float* dy, index_t lddy, const float* past, index_t ldp,
                      float* dx, index_t lddx, float* inverse_rms) noexcept {
  using V = simd::Floats<Arch>;
  for (index_t r = 0; r < rows; ++r, x += ldx, dy += lddy, past += ldp, dx += lddx) {
    V squares(0.0f), dots(0.0f);
    for (index_t i = 0; i < size; i += simd::lanes) {
      const V v = V::load_part(x + i, size - i);
      const V scaled = V::load_part(dy + i, size - i) * V::load_part(weight + i, size - i);
      squares = fma(v, v, squares);
      dots = fma(v, scaled, dots);
    }
    const auto count = static_cast<double>(size);
    const double s = 1 / std::sqrt(static_cast<double>(tree_sum(squares)) / count + eps);
    const double back = -static_cast<double>(tree_sum(dots)) * s * s * s / count;
    const V scale(static_cast<float>(s)), along(static_cast<float>(back));
    inverse_rms[r] = static_cast<float>(s);
    for (index_t i = 0; i < size; i += simd::lanes) {
      const V v = V::load_part(x + i, size - i), p = V::load_part(past + i, size - i);
      const V scaled = V::load_part(dy + i, size - i) * V::load_part(weight + i, size - i);
      fma(v, along, fma(scaled, scale, p)).store(dx + i);
    }
  }
}

/// Gradient of rmsnorm() with respect to its weight, for channels [columns.begin, columns.end):
/// gradient[c] = fma chain over rows ascending of dy[r][c] * (x[r][c] * inverse_rms[r]), continued
/// from gradient. columns.begin is a multiple of 16.
template <class Arch>
void norm_weight_gradient(const float* x, index_t ldx, const float* dy, index_t lddy,
                          const float* inverse_rms, index_t rows, Interval columns,
                          float* gradient) noexcept {
  using V = simd::Floats<Arch>;
  // Several chains side by side hide each other's latency and read whole stretches of rows.
  constexpr index_t chains = 4;
  for (index_t c = columns.begin; c < columns.end; c += chains * simd::lanes) {
    V sum[chains];
    const auto for_each_chain = [&](auto f) __attribute__((always_inline)) {
      ROPEWALK_UNROLL
      for (index_t i = 0; i < chains; ++i) {
        const index_t at = c + i * simd::lanes;
        f(sum[i], at, std::max<index_t>(columns.end - at, 0));
      }
    };
    for_each_chain([&](V & s, index_t at, index_t count)
                       __attribute__((always_inline)) { s = V::load_part(gradient + at, count); });
    for (index_t r = 0; r < rows; ++r) {
      const V scale(inverse_rms[r]);
      for_each_chain([&](V & s, index_t at, index_t count) __attribute__((always_inline)) {
        const V normed = V::load_part(x + r * ldx + at, count) * scale;
        s = fma(V::load_part(dy + r * lddy + at, count), normed, s);
      });
    }
    for_each_chain([&](V & s, index_t at, index_t count)
                       __attribute__((always_inline)) { s.store_part(gradient + at, count); });
  }
}

namespace detail {

/// f(integral_constant<vectors>, first column) over `size` columns padded to 16: 4 vectors at a
/// time, whose exponentials go in lock-step (simd/math.hpp), then one.
template <class F>
[[gnu::always_inline]] inline void for_each_vectors(index_t size, F&& f) {
  constexpr std::size_t many = 4;
  index_t i = 0;
  for (; i + column_of(many) <= size; i += column_of(many)) {
    f(std::integral_constant<std::size_t, many>{}, i);
  }
  for (; i < size; i += column_of(1)) f(std::integral_constant<std::size_t, 1>{}, i);
}

}  // namespace detail

/// out = silu(gate) * up, the bits of gemm_swiglu(). gate, up: (rows, size padded to 16), row
/// stride ld; out: row stride ldo, rounded to T.
template <class Arch, class T>
void swiglu(const float* gate, const float* up, index_t ld, index_t rows, index_t size, T* out,
            index_t ldo) noexcept {
  using V = simd::Floats<Arch>;
  for (index_t r = 0; r < rows; ++r) {
    detail::for_each_vectors(
        size, [&](auto vectors, index_t i) __attribute__((always_inline)) {
          constexpr std::size_t Vectors = vectors();
          V g[Vectors];
          ROPEWALK_UNROLL
          for (std::size_t v = 0; v < Vectors; ++v) {
            g[v] = V::load(gate + r * ld + i + detail::column_of(v));
          }
          simd::silu(g);
          ROPEWALK_UNROLL
          for (std::size_t v = 0; v < Vectors; ++v) {
            const index_t at = i + detail::column_of(v);
            simd::store_rounded<Arch>(out + r * ldo + at, g[v] * V::load(up + r * ld + at));
          }
        });
  }
}

/// Gradient of out = silu(gate) * up, in place of gate and up, and out itself once more, which the
/// gradient of the next product needs. With h = sigma(g) = 1 / (1 + e^-g):
///
///     d gate = dout * up * (h + g h (1 - h)),   d up = dout * g h
///
/// gate, up: (rows, size padded to 16), row stride ld; dout: row stride ldd, may be out's memory.
template <class Arch, class T>
void swiglu_gradient(float* gate, float* up, index_t ld, index_t rows, index_t size,
                     const float* dout, index_t ldd, T* out, index_t ldo) noexcept {
  using V = simd::Floats<Arch>;
  const V one(1.0f), zero(0.0f), lowest(-80.0f);  // as silu() clamps
  for (index_t r = 0; r < rows; ++r) {
    detail::for_each_vectors(
        size, [&](auto vectors, index_t i) __attribute__((always_inline)) {
          constexpr std::size_t Vectors = vectors();
          V silu[Vectors], e[Vectors], h[Vectors];
          ROPEWALK_UNROLL
          for (std::size_t v = 0; v < Vectors; ++v) {
            silu[v] = V::load(gate + r * ld + i + detail::column_of(v));
          }
          ROPEWALK_UNROLL
          for (std::size_t v = 0; v < Vectors; ++v) e[v] = zero - max(lowest, silu[v]);
          simd::silu(silu);
          simd::exp(e);
          ROPEWALK_UNROLL
          for (std::size_t v = 0; v < Vectors; ++v) e[v] = one + e[v];
          simd::reciprocal(e, h);
          ROPEWALK_UNROLL
          for (std::size_t v = 0; v < Vectors; ++v) {
            const index_t at = r * ld + i + detail::column_of(v);
            const V u = V::load(up + at), d = V::load(dout + r * ldd + i + detail::column_of(v));
            (d * u * fma(silu[v], one - h[v], h[v])).store(gate + at);
            (d * silu[v]).store(up + at);
            simd::store_rounded<Arch>(out + r * ldo + i + detail::column_of(v), silu[v] * u);
          }
        });
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
