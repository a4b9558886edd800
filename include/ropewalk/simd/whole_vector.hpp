// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What an instruction set does with the 16 lanes of a vector together and xsimd lacks: parts of
/// vectors, neighbours, sums over lanes. Floats<Arch> (simd/floats.hpp) is where to find it.

#include <cstdint>

#include "ropewalk/core/tensor_view.hpp"
#include "ropewalk/simd/arch.hpp"

#if defined(__SSE__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <cstring>

#include <arm_neon.h>
#endif

namespace ropewalk::inline ROPEWALK_ABI::simd::detail {

/// Of registers of Width floats; nothing where there are too many of them.
template <std::size_t Width>
struct WholeVector {};
template <std::size_t Width>
inline constexpr bool has_whole_vector = requires {
  typename WholeVector<Width>::Raw;
};

#if defined(__AVX2__)
/// The sum of 8 lanes by the tree of the canonical arithmetic.
inline float tree_sum(__m256 a) {
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
inline float max_lane(__m256 a) {
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}

template <>
struct WholeVector<8> {
  /// Lanes 0 to 7 and 8 to 15; also masks of them.
  struct Raw {
    __m256 low, high;
  };
  /// All bits set in the lanes below count.
  static Raw first(index_t count) {
    const __m256i n = _mm256_set1_epi32(static_cast<int>(count));
    const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(n, low)),
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(n, high))};
  }
  static Raw load_first(const float* p, index_t count) {
    const Raw mask = first(count);
    return {_mm256_maskload_ps(p, _mm256_castps_si256(mask.low)),
            _mm256_maskload_ps(p + 8, _mm256_castps_si256(mask.high))};
  }
  static void store_first(float* p, index_t count, Raw x) {
    const Raw mask = first(count);
    _mm256_maskstore_ps(p, _mm256_castps_si256(mask.low), x.low);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(mask.high), x.high);
  }
  /// Lanes `offset`, offset + 2, .. of the 32 floats (a, b), in the order that costs least.
  template <int offset>
  static Raw every_second_apart(Raw a, Raw b) {
    constexpr int lanes = offset == 0 ? 0x88 : 0xdd;
    return {_mm256_shuffle_ps(a.low, a.high, lanes), _mm256_shuffle_ps(b.low, b.high, lanes)};
  }
  static Raw in_order(Raw x) {
    const auto half = [](__m256 y) {
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(y), 0xd8));
    };
    return {half(x.low), half(x.high)};
  }
  /// u[0], v[0], u[1], v[1], .. for the lower or the upper half of u and v.
  template <bool upper>
  static Raw weave(Raw u, Raw v) {
    const __m256 x = upper ? u.high : u.low, y = upper ? v.high : v.low;
    const __m256 a = _mm256_unpacklo_ps(x, y), b = _mm256_unpackhi_ps(x, y);
    return {_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)};
  }
  static Raw swap_neighbours(Raw x) {
    return {_mm256_permute_ps(x.low, 0xb1), _mm256_permute_ps(x.high, 0xb1)};
  }
  static Raw select_first(index_t count, Raw a, Raw b) {
    const Raw mask = first(count);
    return {_mm256_blendv_ps(b.low, a.low, mask.low), _mm256_blendv_ps(b.high, a.high, mask.high)};
  }
  static bool any_greater(Raw a, Raw b) {
    const __m256 low = _mm256_cmp_ps(a.low, b.low, _CMP_NLE_UQ);
    return _mm256_movemask_ps(_mm256_or_ps(low, _mm256_cmp_ps(a.high, b.high, _CMP_NLE_UQ))) != 0;
  }
  static float tree_sum(Raw x) { return detail::tree_sum(_mm256_add_ps(x.low, x.high)); }
  static float max_lane(Raw x) { return detail::max_lane(_mm256_max_ps(x.low, x.high)); }
  /// The upper 16 bits of each lane, side by side: 32 bytes.
  static void store_upper_halves(void* out, Raw x) {
    const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(x.low), 16);
    const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(x.high), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm256_storeu_si256(static_cast<__m256i*>(out), packed);
  }
  /// Inverse of store_upper_halves; lower bits are zero.
  static Raw load_upper_halves(const void* p) {
    const auto half = [p](int i) {
      const __m128i packed = _mm_loadu_si128(static_cast<const __m128i*>(p) + i);
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16));
    };
    return {half(0), half(1)};
  }
  /// The upper, or the lower, halves of 16 numbers of 32 bits, as upper halves. The mask is read
  /// each time: in a register of its own it would drive a sum out of a tile's.
  static Raw load_uppers(const void* p) {
    alignas(32) static constexpr std::uint32_t mask[8] = {0xffff0000u, 0xffff0000u, 0xffff0000u,
                                                          0xffff0000u, 0xffff0000u, 0xffff0000u,
                                                          0xffff0000u, 0xffff0000u};
    const auto half = [p](int i) {
      const auto* pairs = static_cast<const float*>(p) + 8 * i;
      return _mm256_and_ps(*reinterpret_cast<const volatile __m256*>(mask), _mm256_loadu_ps(pairs));
    };
    return {half(0), half(1)};
  }
  static Raw load_lowers(const void* p) {
    const auto* from = static_cast<const __m256i*>(p);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(from), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(from + 1), 16))};
  }
  /// In each lane the upper halves of `even`, then of `odd`: 64 bytes.
  static void store_woven_halves(void* out, Raw even, Raw odd) {
    const auto store = [out](int i, __m256 e, __m256 o) {
      const __m256i lower = _mm256_srli_epi32(_mm256_castps_si256(e), 16);
      const __m256i both = _mm256_blend_epi16(lower, _mm256_castps_si256(o), 0xaa);
      _mm256_storeu_si256(static_cast<__m256i*>(out) + i, both);
    };
    store(0, even.low, odd.low);
    store(1, even.high, odd.high);
  }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
template <>
struct WholeVector<16> {
  using Raw = __m512;
  static __mmask16 first(index_t count) {
    return static_cast<__mmask16>((1u << static_cast<unsigned>(count)) - 1);
  }
  static Raw load_first(const float* p, index_t count) {
    return _mm512_maskz_loadu_ps(first(count), p);
  }
  static void store_first(float* p, index_t count, Raw x) {
    _mm512_mask_storeu_ps(p, first(count), x);
  }
  template <int offset>
  static Raw every_second_apart(Raw a, Raw b) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(offset)), b);
  }
  static Raw in_order(Raw x) { return x; }
  template <bool upper>
  static Raw weave(Raw u, Raw v) {
    const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(u, _mm512_add_epi32(order, _mm512_set1_epi32(upper ? 8 : 0)), v);
  }
  static Raw swap_neighbours(Raw x) { return _mm512_permute_ps(x, 0xb1); }
  static Raw select_first(index_t count, Raw a, Raw b) {
    return _mm512_mask_mov_ps(b, first(count), a);
  }
  static bool any_greater(Raw a, Raw b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ) != 0; }
  static __m256 upper(Raw x) { return _mm512_extractf32x8_ps(x, 1); }
  static float tree_sum(Raw x) {
    return detail::tree_sum(_mm256_add_ps(_mm512_castps512_ps256(x), upper(x)));
  }
  static float max_lane(Raw x) {
    return detail::max_lane(_mm256_max_ps(_mm512_castps512_ps256(x), upper(x)));
  }
  static void store_upper_halves(void* out, Raw x) {
    const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(x), 16);
    _mm256_storeu_si256(static_cast<__m256i*>(out), _mm512_cvtepi32_epi16(bits));
  }
  static Raw load_upper_halves(const void* p) {
    const __m256i packed = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16));
  }
  static Raw load_uppers(const void* p) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), upper));
  }
  static Raw load_lowers(const void* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
  static void store_woven_halves(void* out, Raw even, Raw odd) {
    const __m512i lower = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
    _mm512_storeu_si512(out, _mm512_mask_blend_epi16(0xaaaaaaaau, lower, _mm512_castps_si512(odd)));
  }
};
#endif

#if defined(__aarch64__) && defined(__ARM_NEON)
template <>
struct WholeVector<4> {
  struct Raw {
    float32x4_t r[4];
  };
  static Raw load(const float* p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
  }
  static void store(float* p, Raw x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.r[i]);
  }
  static Raw load_first(const float* p, index_t count) {
    float all[16] = {};
    if (count > 0) std::memcpy(all, p, static_cast<std::size_t>(count) * sizeof(float));
    return load(all);
  }
  static void store_first(float* p, index_t count, Raw x) {
    float all[16];
    store(all, x);
    if (count > 0) std::memcpy(p, all, static_cast<std::size_t>(count) * sizeof(float));
  }
  template <int offset>
  static Raw every_second_apart(Raw a, Raw b) {
    const auto half = [](float32x4_t x, float32x4_t y) {
      return offset == 0 ? vuzp1q_f32(x, y) : vuzp2q_f32(x, y);
    };
    return {
        {half(a.r[0], a.r[1]), half(a.r[2], a.r[3]), half(b.r[0], b.r[1]), half(b.r[2], b.r[3])}};
  }
  static Raw in_order(Raw x) { return x; }
  template <bool upper>
  static Raw weave(Raw u, Raw v) {
    constexpr int k = upper ? 2 : 0;
    return {{vzip1q_f32(u.r[k], v.r[k]), vzip2q_f32(u.r[k], v.r[k]),
             vzip1q_f32(u.r[k + 1], v.r[k + 1]), vzip2q_f32(u.r[k + 1], v.r[k + 1])}};
  }
  static Raw swap_neighbours(Raw x) {
    return {{vrev64q_f32(x.r[0]), vrev64q_f32(x.r[1]), vrev64q_f32(x.r[2]), vrev64q_f32(x.r[3])}};
  }
  static Raw select_first(index_t count, Raw a, Raw b) {
    constexpr std::int32_t numbers[4] = {0, 1, 2, 3};
    const int32x4_t lane = vld1q_s32(numbers);
    Raw out;
    for (int i = 0; i < 4; ++i) {
      const auto left = static_cast<std::int32_t>(count) - 4 * i;
      out.r[i] = vbslq_f32(vcltq_s32(lane, vdupq_n_s32(left)), a.r[i], b.r[i]);
    }
    return out;
  }
  static bool any_greater(Raw a, Raw b) {
    uint32x4_t none = vcleq_f32(a.r[0], b.r[0]);
    for (int i = 1; i < 4; ++i) none = vandq_u32(none, vcleq_f32(a.r[i], b.r[i]));
    return vminvq_u32(none) == 0;
  }
  static float tree_sum(Raw x) {
    const float32x4_t a = vaddq_f32(vaddq_f32(x.r[0], x.r[2]), vaddq_f32(x.r[1], x.r[3]));
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
  }
  static float max_lane(Raw x) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.r[0], x.r[1]), vmaxq_f32(x.r[2], x.r[3])));
  }
  static void store_upper_halves(void* out, Raw x) {
    auto* to = static_cast<unsigned char*>(out);
    for (int i = 0; i < 4; ++i) {
      const uint16x4_t upper = vshrn_n_u32(vreinterpretq_u32_f32(x.r[i]), 16);
      std::memcpy(to + 8 * i, &upper, sizeof upper);
    }
  }
  static Raw load_upper_halves(const void* p) {
    const auto* from = static_cast<const unsigned char*>(p);
    Raw x;
    for (int i = 0; i < 4; ++i) {
      uint16x4_t upper;
      std::memcpy(&upper, from + 8 * i, sizeof upper);
      x.r[i] = vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(upper), 16));
    }
    return x;
  }
  static Raw load_uppers(const void* p) {
    return each_pair(p, [](uint32x4_t u) { return vandq_u32(u, vdupq_n_u32(0xffff0000u)); });
  }
  static Raw load_lowers(const void* p) {
    return each_pair(p, [](uint32x4_t u) { return vshlq_n_u32(u, 16); });
  }
  static void store_woven_halves(void* out, Raw even, Raw odd) {
    auto* to = static_cast<unsigned char*>(out);
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t both =
          vsriq_n_u32(vreinterpretq_u32_f32(odd.r[i]), vreinterpretq_u32_f32(even.r[i]), 16);
      std::memcpy(to + 16 * i, &both, sizeof both);
    }
  }

 private:
  template <class F>
  static Raw each_pair(const void* p, F f) {
    const auto* from = static_cast<const unsigned char*>(p);
    Raw x;
    for (int i = 0; i < 4; ++i) {
      uint32x4_t pairs;
      std::memcpy(&pairs, from + 16 * i, sizeof pairs);
      x.r[i] = vreinterpretq_f32_u32(f(pairs));
    }
    return x;
  }
};
#endif

}  // namespace ropewalk::inline ROPEWALK_ABI::simd::detail
