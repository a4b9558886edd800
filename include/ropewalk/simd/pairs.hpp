// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// bf16 in vectors: rounding floats to it, widening, and the dot product of pairs.

#include <type_traits>

#include "ropewalk/core/dtype.hpp"
#include "ropewalk/simd/floats.hpp"

namespace ropewalk::inline ROPEWALK_ABI {
namespace simd {

/// Whether Arch multiplies bf16 pairs itself. Other sets widen left operands to floats beforehand
/// and right ones in registers: a pair's products are added odd element first, each by an fma,
/// which is what vdpbf16ps does.
template <class Arch>
inline constexpr bool has_pairs = false;
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
template <>
inline constexpr bool has_pairs<avx512bf16> = true;
#endif
/// Whether Arch multiplies tiles of bf16 matrices (simd/matrix_tiles.hpp), of which products and
/// attention are made then.
template <class Arch>
inline constexpr bool has_matrix_tiles = std::is_same_v<Arch, emulated_amx>;
#if defined(ROPEWALK_AMX)
template <>
inline constexpr bool has_pairs<amx> = true;
template <>
inline constexpr bool has_matrix_tiles<amx> = true;
#endif

/// What kernels of Arch multiply with operands that are stored as T: elements of the left operand,
/// and of both in products over rows.
template <class Arch, class T>
using Multiplied = std::conditional_t<std::is_same_v<T, bf16> && !has_pairs<Arch>, float, T>;
/// Whether products of Arch with packed matrices and panels whose elements are T take them by
/// matrix tiles.
template <class Arch, class T>
inline constexpr bool takes_matrix_tiles = std::is_same_v<T, bf16>&& has_matrix_tiles<Arch>;

using ropewalk::flushed_bf16;
using ropewalk::rounded_to;

namespace detail {

/// WholeVector of Arch's registers, where it has one.
template <class Arch>
using WholeOf = WholeVector<Register<Arch>::width>;
template <class Arch>
inline constexpr bool has_whole = has_whole_vector<Register<Arch>::width>;

}  // namespace detail

/// 16 numbers as floats.
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> load_widened(const float* p) {
  return Floats<Arch>::load(p);
}
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> load_widened(const bf16* p) {
  if constexpr (detail::has_whole<Arch>) {
    return Floats<Arch>::from_raw(detail::WholeOf<Arch>::load_upper_halves(p));
  } else {
    float wide[lanes];
    for (index_t i = 0; i < lanes; ++i) wide[i] = to_float(p[i]);
    return Floats<Arch>::load(wide);
  }
}

/// The first `count` of 16 numbers as floats, and zeros.
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> load_widened_part(const float* p, index_t count) {
  return Floats<Arch>::load_part(p, count);
}
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> load_widened_part(const bf16* p, index_t count) {
  if (count >= lanes) return load_widened<Arch>(p);
  bf16 all[lanes] = {};
  for (index_t i = 0; i < count; ++i) all[i] = p[i];
  return load_widened<Arch>(all);
}

/// The odd, or the even, elements of the 16 pairs at p, as floats.
template <class Arch, bool odd>
[[gnu::always_inline]] inline Floats<Arch> load_of_pairs(const bf16* p) {
  if constexpr (detail::has_whole<Arch>) {
    return Floats<Arch>::from_raw(odd ? detail::WholeOf<Arch>::load_uppers(p)
                                      : detail::WholeOf<Arch>::load_lowers(p));
  } else {
    float wide[lanes];
    for (index_t i = 0; i < lanes; ++i) wide[i] = to_float(p[2 * i + (odd ? 1 : 0)]);
    return Floats<Arch>::load(wide);
  }
}

/// Writes the upper halves of 16 floats, whose lower halves are zero.
template <class Arch>
[[gnu::always_inline]] inline void store_upper_halves(bf16* out, Floats<Arch> x) {
  if constexpr (detail::has_whole<Arch>) {
    detail::WholeOf<Arch>::store_upper_halves(out, x.raw());
  } else {
    float values[lanes];
    x.store(values);
    for (index_t i = 0; i < lanes; ++i) {
      out[i] = {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(values[i]) >> 16)};
    }
  }
}

/// Writes 16 floats as T.
template <class Arch>
[[gnu::always_inline]] inline void store_rounded(float* out, Floats<Arch> x) {
  x.store(out);
}
template <class Arch>
[[gnu::always_inline]] inline void store_rounded(bf16* out, Floats<Arch> x) {
  if constexpr (has_pairs<Arch>) {
#if defined(__AVX512BF16__)
    const __m256bh half = _mm512_cvtneps_pbh(x.raw());
    __builtin_memcpy(static_cast<void*>(out), &half, sizeof half);
#endif
  } else {
    store_upper_halves<Arch>(out, rounded_to_bf16(x));
  }
}

/// out[i] = bf16 of in[i] for the 32 floats (a, b), in order.
template <class Arch>
[[gnu::always_inline]] inline void store_bf16(bf16* out, Floats<Arch> a, Floats<Arch> b) {
  if constexpr (has_pairs<Arch>) {
#if defined(__AVX512BF16__)
    const __m512bh pairs = _mm512_cvtne2ps_pbh(b.raw(), a.raw());
    __builtin_memcpy(static_cast<void*>(out), &pairs, sizeof pairs);
#endif
  } else {
    store_rounded<Arch>(out, a);
    store_rounded<Arch>(out + lanes, b);
  }
}

/// Writes 16 floats, rounded to T, as elements that may be wider.
template <class Arch, class T, class Element>
[[gnu::always_inline]] inline void store_operand(Element* out, Floats<Arch> x) {
  if constexpr (std::is_same_v<Element, T>) {
    store_rounded<Arch>(out, x);
  } else {
    rounded_to_bf16(x).store(out);
  }
}

/// Writes the first `count` of 16 floats as T.
template <class Arch>
[[gnu::always_inline]] inline void store_rounded_part(float* out, Floats<Arch> x, index_t count) {
  x.store_part(out, count);
}
template <class Arch>
[[gnu::always_inline]] inline void store_rounded_part(bf16* out, Floats<Arch> x, index_t count) {
  if (count >= lanes) return store_rounded<Arch>(out, x);
  bf16 all[lanes];
  store_rounded<Arch>(all, x);
  for (index_t i = 0; i < count; ++i) out[i] = all[i];
}

/// out[2 i], out[2 i + 1] = even[i], odd[i]: 16 pairs.
template <class Arch>
[[gnu::always_inline]] inline void store_woven(bf16* out, const bf16* even, const bf16* odd) {
  if constexpr (detail::has_whole<Arch>) {
    detail::WholeOf<Arch>::store_woven_halves(out, detail::WholeOf<Arch>::load_upper_halves(even),
                                              detail::WholeOf<Arch>::load_upper_halves(odd));
  } else {
    for (index_t i = 0; i < lanes; ++i) {
      out[2 * i] = even[i];
      out[2 * i + 1] = odd[i];
    }
  }
}

/// out[2 i], out[2 i + 1] = bf16 of even[i], odd[i]: 16 pairs.
template <class Arch>
[[gnu::always_inline]] inline void store_woven(bf16* out, Floats<Arch> even, Floats<Arch> odd) {
  if constexpr (has_pairs<Arch>) {
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
    const __m512bh apart = _mm512_cvtne2ps_pbh(odd.raw(), even.raw());
    __m512i halves;
    __builtin_memcpy(&halves, &apart, sizeof halves);
    const __m512i woven =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(woven, halves));
#endif
  } else if constexpr (detail::has_whole<Arch>) {
    detail::WholeOf<Arch>::store_woven_halves(out, rounded_to_bf16(even).raw(),
                                              rounded_to_bf16(odd).raw());
  } else {
    alignas(64) bf16 first[lanes], second[lanes];
    store_rounded<Arch>(first, even);
    store_rounded<Arch>(second, odd);
    store_woven<Arch>(out, first, second);
  }
}

/// 16 elements of two rows as a product over rows takes them where operands are bf16: as pairs at
/// `out`, or as rows of floats, the odd row at out, the even one at out + ldo. Floats are rounded.
template <class Arch>
[[gnu::always_inline]] inline void pair_rows(Floats<Arch> even, Floats<Arch> odd, bf16* out,
                                             index_t /*ldo*/) {
  store_woven<Arch>(out, even, odd);
}
template <class Arch>
[[gnu::always_inline]] inline void pair_rows(Floats<Arch> even, Floats<Arch> odd, float* out,
                                             index_t ldo) {
  rounded_to_bf16(odd).store(out);
  rounded_to_bf16(even).store(out + ldo);
}
template <class Arch, class Element>
[[gnu::always_inline]] inline void pair_rows(const float* even, const float* odd, Element* out,
                                             index_t ldo) {
  pair_rows(Floats<Arch>::load(even), Floats<Arch>::load(odd), out, ldo);
}
template <class Arch>
[[gnu::always_inline]] inline void pair_rows(const bf16* even, const bf16* odd, bf16* out,
                                             index_t /*ldo*/) {
  store_woven<Arch>(out, even, odd);
}
template <class Arch>
[[gnu::always_inline]] inline void pair_rows(const bf16* even, const bf16* odd, float* out,
                                             index_t ldo) {
  load_widened<Arch>(odd).store(out);
  load_widened<Arch>(even).store(out + ldo);
}

/// Converts `count` floats.
template <class Arch>
void round_to_bf16(const float* in, index_t count, bf16* out) noexcept {
  using V = Floats<Arch>;
  index_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    store_bf16<Arch>(out + i, V::load(in + i), V::load(in + i + lanes));
  }
  for (; i < count; ++i) out[i] = flushed_bf16(in[i]);
}

/// Widens `count` bf16 numbers.
template <class Arch>
void widen(const bf16* in, index_t count, float* out) noexcept {
  index_t i = 0;
  for (; i + lanes <= count; i += lanes) load_widened<Arch>(in + i).store(out + i);
  for (; i < count; ++i) out[i] = to_float(in[i]);
}

/// While it lives and `active`, this thread's subnormal results and operands are zero, as they
/// always are for the bf16 dot product (x86; elsewhere nothing).
class FlushSubnormals {
 public:
#if defined(__SSE__)
  explicit FlushSubnormals(bool active) : active_(active) {
    if (!active_) return;
    before_ = _mm_getcsr();
    _mm_setcsr(before_ | 0x8040u);
  }
  ~FlushSubnormals() {
    if (active_) _mm_setcsr(before_);
  }
#else
  explicit FlushSubnormals(bool) {}
  ~FlushSubnormals() {}
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__SSE__)
  bool active_;
  unsigned before_ = 0;
#endif
};

/// 16 pairs of bf16, where Arch has them.
template <class Arch>
class Pairs {
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
 public:
  Pairs() = default;
  /// The 32 numbers from p.
  [[gnu::always_inline]] static Pairs load(const bf16* p) {
    Pairs x;
    __builtin_memcpy(&x.r_, p, sizeof x.r_);
    return x;
  }
  /// The pair at p in every lane.
  [[gnu::always_inline]] static Pairs broadcast(const bf16* p) {
    int pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    Pairs x;
    const __m512i all = _mm512_set1_epi32(pair);
    __builtin_memcpy(&x.r_, &all, sizeof x.r_);
    return x;
  }
  /// c + a.odd b.odd + a.even b.even, odd first, each an fma that flushes subnormals.
  [[gnu::always_inline]] friend Floats<Arch> fma(Pairs a, Pairs b, Floats<Arch> c) {
    return Floats<Arch>::from_raw(_mm512_dpbf16_ps(c.raw(), a.r_, b.r_));
  }

 private:
  __m512bh r_;
#endif
};

/// Sum of 32 numbers that were rounded to bf16, added to 16 lanes: lane i of in_order(sum) takes
/// number 2 i + 1, then 2 i, as the dot product of pairs with ones.
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> add_pairs(Floats<Arch> a, Floats<Arch> b,
                                                     Floats<Arch> sum) {
  Floats<Arch> even, odd;
  Floats<Arch>::deinterleave_apart(a, b, even, odd);
  return (sum + odd) + even;
}

/// Writes the 32 floats (a, b) as bf16, and gives add_pairs() of what was written. Both are as
/// rounded_normal_to_bf16() takes them.
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> store_bf16_and_add(bf16* out, Floats<Arch> a,
                                                              Floats<Arch> b, Floats<Arch> sum) {
  if constexpr (has_pairs<Arch>) {
#if defined(__AVX512BF16__)
    const __m512bh rounded = _mm512_cvtne2ps_pbh(b.raw(), a.raw());
    __m512i pairs;
    __builtin_memcpy(&pairs, &rounded, sizeof pairs);
    _mm512_storeu_si512(out, pairs);
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    using V = Floats<Arch>;
    return (sum + V::from_raw(odd)) + V::from_raw(even);
#endif
  } else {
    const Floats<Arch> p = rounded_normal_to_bf16(a), q = rounded_normal_to_bf16(b);
    store_upper_halves<Arch>(out, p);
    store_upper_halves<Arch>(out + lanes, q);
    return add_pairs(p, q, sum);
  }
}

}  // namespace simd
}  // namespace ropewalk::inline ROPEWALK_ABI
