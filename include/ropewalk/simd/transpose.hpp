// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Transposes of 16 x 16 blocks of 32-bit elements.

#include <cstring>

#include "ropewalk/core/dtype.hpp"
#include "ropewalk/simd/pairs.hpp"

namespace ropewalk::inline ROPEWALK_ABI {
namespace simd {

namespace detail {

#if defined(__AVX2__)
/// out[j * ldo + i] = in[i * ldi + j] for i, j in [0, 8).
template <class Element>
[[gnu::always_inline]] inline void transpose_8x8(const Element* in, index_t ldi, Element* out,
                                                 index_t ldo) {
  __m256 r[8], t[8];
  unroll<8>([&](auto i) __attribute__((always_inline)) {
    r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(in + static_cast<index_t>(i()) * ldi));
  });
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  });
  unroll<2>([&](auto i) __attribute__((always_inline)) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  });
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    const auto row = [&](index_t j) { return reinterpret_cast<float*>(out + j * ldo); };
    const auto k = static_cast<index_t>(i());
    _mm256_storeu_ps(row(k), _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(row(k + 4), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  });
}
#endif

}  // namespace detail

/// out[j * ldo + i] = in[i * ldi + j] for i, j in [0, 16); elements of four bytes, strides in
/// elements.
template <class Arch, class Element>
void transpose_16x16(const Element* in, index_t ldi, Element* out, index_t ldo) noexcept {
  static_assert(sizeof(Element) == 4);
#if defined(__AVX512F__)
  if constexpr (detail::Register<Arch>::width == 16) {
    __m512i r[16], t[16];
    unroll<16>([&](auto i) __attribute__((always_inline)) {
      r[i] = _mm512_loadu_si512(in + static_cast<index_t>(i()) * ldi);
    });
    unroll<8>([&](auto i) __attribute__((always_inline)) {
      t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    });
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
      r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
      r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
      r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    });
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    });
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      const auto row = [&](index_t j) { return out + j * ldo; };
      const auto k = static_cast<index_t>(i());
      _mm512_storeu_si512(row(k), _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
      _mm512_storeu_si512(row(k + 8), _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
      _mm512_storeu_si512(row(k + 4), _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
      _mm512_storeu_si512(row(k + 12), _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
    });
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (detail::Register<Arch>::width == 8) {
    for (index_t i = 0; i < lanes; i += 8) {
      for (index_t j = 0; j < lanes; j += 8) {
        detail::transpose_8x8(in + i * ldi + j, ldi, out + j * ldo + i, ldo);
      }
    }
    return;
  }
#endif
  for (index_t j = 0; j < lanes; ++j) {
    for (index_t i = 0; i < lanes; ++i) out[j * ldo + i] = in[i * ldi + j];
  }
}

/// As above for blocks of 16 x 16 pairs of bf16; strides in single elements.
template <class Arch>
void transpose_16x16_pairs(const bf16* in, index_t ldi, bf16* out, index_t ldo) noexcept {
  struct Pair {
    bf16 first, second;
  };
  alignas(64) Pair from[lanes * lanes], to[lanes * lanes];
  for (index_t i = 0; i < lanes; ++i) {
    std::memcpy(static_cast<void*>(from + i * lanes), in + i * ldi, lanes * sizeof(Pair));
  }
  transpose_16x16<Arch>(from, lanes, to, lanes);
  for (index_t i = 0; i < lanes; ++i) {
    std::memcpy(static_cast<void*>(out + i * ldo), to + i * lanes, lanes * sizeof(Pair));
  }
}

/// As above for 16 x 16 floats, or for bf16 whose rows lie in pairs, before and after: element (i,
/// j) at in[i * ldi + j], or in[i / 2 * 2 * ldi + 2 * j + i % 2].
template <class Arch>
void transpose_grouped_16x16(const float* in, index_t ldi, float* out, index_t ldo) noexcept {
  transpose_16x16<Arch>(in, ldi, out, ldo);
}
template <class Arch>
void transpose_grouped_16x16(const bf16* in, index_t ldi, bf16* out, index_t ldo) noexcept {
  alignas(64) float from[lanes * lanes], to[lanes * lanes];
  for (index_t i = 0; i < lanes; i += 2) {
    load_of_pairs<Arch, false>(in + i * ldi).store(from + i * lanes);
    load_of_pairs<Arch, true>(in + i * ldi).store(from + (i + 1) * lanes);
  }
  transpose_16x16<Arch>(from, lanes, to, lanes);
  for (index_t i = 0; i < lanes; i += 2) {
    store_woven<Arch>(out + i * ldo, Floats<Arch>::load(to + i * lanes),
                      Floats<Arch>::load(to + (i + 1) * lanes));
  }
}

}  // namespace simd
}  // namespace ropewalk::inline ROPEWALK_ABI
