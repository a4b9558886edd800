// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Vector exponentials of the softmax (base 2, integer reference) and of SwiGLU (base e).

#include "ropewalk/simd/floats.hpp"

namespace ropewalk::inline ROPEWALK_ABI {
namespace simd {

/// Adding 1.5 * 2^23 rounds a float below 2^22 in magnitude to an integer, found in its low bits.
inline constexpr float round_magic = 12582912.0f;

/// (k - 127) << 23: what Floats' power_of_two subtracts from n << 23 to make 2^(n - k).
constexpr std::int32_t exponent_field(std::int32_t k) {
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(k) - 127u) << 23);
}

/// Scores further than this below the reference count as being this far below. 2^-64 is nothing
/// beside a softmax sum of at least 2^-8 (for 2^24 keys the error is 2^-32 of it), and products
/// with values stay far from the subnormal range, where every operation costs a hundred cycles:
/// with a clamp at 2^-125 a model that had lost its thread beyond its trained length ran 4 times
/// slower.
inline constexpr std::int32_t exp2_range = 64;

/// Integer reference m of a softmax row, in the forms that exp2_from needs. m must be even, so that
/// rounding ties of s go the same way for every m; |m| <= 2^21.
template <class Arch>
struct Exp2Reference {
  [[gnu::always_inline]] explicit Exp2Reference(std::int32_t m)
      : lowest(static_cast<float>(m - exp2_range)), magic(round_magic - static_cast<float>(m)) {}
  [[gnu::always_inline]] Exp2Reference(Floats<Arch> lowest_score, Floats<Arch> magic_addend)
      : lowest(lowest_score), magic(magic_addend) {}
  Floats<Arch> lowest;
  Floats<Arch> magic;  ///< added to s it leaves round(s) - m in the low bits
};

/// Coefficients of 2^f on [-1/2, 1/2], the highest power first.
inline constexpr float exp2_degree_5[] = {0.001326472731307149f, 0.009671512991189957f,
                                          0.05550733581185341f,  0.24022242426872253f,
                                          0.6931470036506653f,   1.0f};
inline constexpr float exp2_degree_3[] = {0.05551965f, 0.242256863f, 0.69314f, 1.0f};

/// x[i] = 2^(x[i] - m) as 2^(n - m) * poly(f) with n = round(x[i]), f = x[i] - n: changing m
/// multiplies the result by an exact power of two, so softmax bits do not depend on m. x is clamped
/// to m - 64 from below; |x| < 2^21; NaN stays NaN. The result is an exact product, so adding it to
/// a sum gives the same bits whether the compiler contracts that or not. The vectors go step by
/// step together, since one alone would wait for each of its steps.
///
/// **Error:** 1.1e-7 relative for exp2_degree_5 (fitted with the constant term exactly 1) plus
/// three roundings, 1.45e-4 for exp2_degree_3, 1/27 of bf16's rounding; tests/simd/test_math.cpp.
template <class Arch, std::size_t Vectors, std::size_t Terms>
[[gnu::always_inline]] inline void exp2_from(Floats<Arch> (&x)[Vectors],
                                             const Exp2Reference<Arch>& reference,
                                             const float (&coefficients)[Terms]) {
  using V = Floats<Arch>;
  V magic_sum[Vectors];  // n - m in its low bits
  V f[Vectors];
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) x[i] = max(reference.lowest, x[i]);
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) magic_sum[i] = x[i] + reference.magic;
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) f[i] = magic_sum[i] - reference.magic;
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) f[i] = x[i] - f[i];
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) {
    x[i] = fma(V(coefficients[0]), f[i], V(coefficients[1]));
  }
  ROPEWALK_UNROLL
  for (std::size_t k = 2; k < Terms; ++k) {
    ROPEWALK_UNROLL
    for (std::size_t i = 0; i < Vectors; ++i) x[i] = fma(x[i], f[i], V(coefficients[k]));
  }
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) x[i] = scale_by_power(x[i], magic_sum[i]);
}

/// The same for one vector: degree 5, and degree 3 for results that are rounded to bf16.
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> exp2_from(Floats<Arch> s,
                                                     const Exp2Reference<Arch>& reference) {
  Floats<Arch> x[1] = {s};
  exp2_from(x, reference, exp2_degree_5);
  return x[0];
}
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> coarse_exp2_from(Floats<Arch> s,
                                                            const Exp2Reference<Arch>& reference) {
  Floats<Arch> x[1] = {s};
  exp2_from(x, reference, exp2_degree_3);
  return x[0];
}

/// x[i] = e^x[i] for x in [-87, 88] (clamped to it); NaN stays NaN. The vectors go step by step
/// together, here and below: each waits some hundred cycles for its own results, and a processor
/// finds too little other work in the code that follows.
///
/// **Error:** below 2 units in the last place: reduction by ln 2 in two parts, degree 6.
template <class Arch, std::size_t Vectors>
[[gnu::always_inline]] inline void exp(Floats<Arch> (&x)[Vectors]) {
  using V = Floats<Arch>;
  constexpr std::size_t terms = 7;
  constexpr float coefficients[terms] = {0.001384364441037178f,
                                         0.008374162949621677f,
                                         0.04166800156235695f,
                                         0.16666431725025177f,
                                         0.4999999403953552f,
                                         1.0f,
                                         1.0f};
  V sum[Vectors], r[Vectors];
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) x[i] = max(V(-87.0f), min(V(88.0f), x[i]));
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) {
    sum[i] = fma(x[i], V(1.44269504088896341f), V(round_magic));
  }
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) r[i] = sum[i] - V(round_magic);
  // ln 2 to 16 bits, whose product is exact, and the rest of it.
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) x[i] = fma(r[i], V(-0.693145751953125f), x[i]);
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) r[i] = fma(r[i], V(-1.428606820309417e-06f), x[i]);
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) {
    x[i] = fma(V(coefficients[0]), r[i], V(coefficients[1]));
  }
  ROPEWALK_UNROLL
  for (std::size_t k = 2; k < terms; ++k) {
    ROPEWALK_UNROLL
    for (std::size_t i = 0; i < Vectors; ++i) x[i] = fma(x[i], r[i], V(coefficients[k]));
  }
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) {
    x[i] = x[i] * power_of_two(sum[i], exponent_field(0));
  }
}
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> exp(Floats<Arch> x) {
  Floats<Arch> one[1] = {x};
  exp(one);
  return one[0];
}

/// r[i] = 1 / x[i] for normal positive x below 2^126; NaN stays NaN. The same bits on every
/// instruction set, which their own approximations do not have, and several times faster than a
/// division.
///
/// **Error:** below 0.51 units in the last place: 12 % by an integer subtraction, two cubic steps.
template <class Arch, std::size_t Vectors>
[[gnu::always_inline]] inline void reciprocal(const Floats<Arch> (&x)[Vectors],
                                              Floats<Arch> (&r)[Vectors]) {
  using V = Floats<Arch>;
  V e[Vectors];
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) r[i] = reciprocal_guess(x[i]);
  ROPEWALK_UNROLL
  for (int step = 0; step < 2; ++step) {
    ROPEWALK_UNROLL
    for (std::size_t i = 0; i < Vectors; ++i) e[i] = fma(V(0.0f) - x[i], r[i], V(1.0f));
    ROPEWALK_UNROLL
    for (std::size_t i = 0; i < Vectors; ++i) e[i] = fma(e[i], e[i], e[i]);
    ROPEWALK_UNROLL
    for (std::size_t i = 0; i < Vectors; ++i) r[i] = fma(e[i], r[i], r[i]);
  }
}
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> reciprocal(Floats<Arch> x) {
  const Floats<Arch> one[1] = {x};
  Floats<Arch> r[1];
  reciprocal(one, r);
  return r[0];
}

/// x[i] /= d[i] for d as reciprocal() takes it: NaN where x is not finite.
///
/// **Error:** below 0.51 units in the last place: one correction by the remainder.
template <class Arch, std::size_t Vectors>
[[gnu::always_inline]] inline void divide(Floats<Arch> (&x)[Vectors],
                                          const Floats<Arch> (&d)[Vectors]) {
  using V = Floats<Arch>;
  V r[Vectors], q[Vectors];
  reciprocal(d, r);
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) q[i] = x[i] * r[i];
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) x[i] = fma(V(0.0f) - d[i], q[i], x[i]);
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) x[i] = fma(x[i], r[i], q[i]);
}
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> divide(Floats<Arch> x, Floats<Arch> d) {
  Floats<Arch> one[1] = {x};
  const Floats<Arch> by[1] = {d};
  divide(one, by);
  return one[0];
}

/// x[i] / (1 + e^-x[i]) (arXiv:1702.03118); below -80, where that is nothing, its value at -80.
///
/// **Error:** below 4 units in the last place.
template <class Arch, std::size_t Vectors>
[[gnu::always_inline]] inline void silu(Floats<Arch> (&x)[Vectors]) {
  using V = Floats<Arch>;
  V d[Vectors];
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) x[i] = max(V(-80.0f), x[i]);
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) d[i] = V(0.0f) - x[i];
  exp(d);
  ROPEWALK_UNROLL
  for (std::size_t i = 0; i < Vectors; ++i) d[i] = V(1.0f) + d[i];
  divide(x, d);
}
template <class Arch>
[[gnu::always_inline]] inline Floats<Arch> silu(Floats<Arch> x) {
  Floats<Arch> one[1] = {x};
  silu(one);
  return one[0];
}

}  // namespace simd
}  // namespace ropewalk::inline ROPEWALK_ABI
