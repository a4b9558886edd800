// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Logarithm, power, exponential, sine and turns with the same bits on every machine.

#include <bit>
#include <cstdint>
#include <limits>

#include "ropewalk/core/config.hpp"

// Compiler built-ins instead of <cmath>, which is most of what this header would cost to include.
// The last bits of libm's functions differ between machines, and frequencies are hashed. So these
// use only + - * /, std::fma (exact by IEEE 754) and scaling by powers of two. No sum here has a
// bare product as an operand: a compiler that contracts a*b + c has nothing to contract.

namespace ropewalk::inline ROPEWALK_ABI {
namespace elementary {

/// a * b + c with one rounding.
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline double floor(double x) { return __builtin_floor(x); }
inline double ceil(double x) { return __builtin_ceil(x); }
inline bool is_finite(double x) { return x - x == 0; }

namespace detail {

/// Unevaluated sum hi + lo with |lo| <= ulp(hi) / 2: about 106 bits.
struct DoubleDouble {
  double hi = 0;
  double lo = 0;
};

/// a * b rounded, in a form that no compiler fuses with a following sum.
inline double product(double a, double b) { return fma(a, b, 0.0); }

/// Exact a + b for |a| >= |b|.
inline DoubleDouble fast_two_sum(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}

/// Exact a + b.
inline DoubleDouble two_sum(double a, double b) {
  const double s = a + b;
  const double b_part = s - a;
  return {s, (a - (s - b_part)) + (b - b_part)};
}

/// Exact a * b.
inline DoubleDouble two_product(double a, double b) {
  const double p = product(a, b);
  return {p, fma(a, b, -p)};
}

inline DoubleDouble add(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble s = two_sum(a.hi, b.hi);
  const DoubleDouble t = two_sum(a.lo, b.lo);
  const DoubleDouble u = fast_two_sum(s.hi, s.lo + t.hi);
  return fast_two_sum(u.hi, u.lo + t.lo);
}

inline DoubleDouble multiply(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble p = two_product(a.hi, b.hi);
  return fast_two_sum(p.hi, fma(a.hi, b.lo, fma(a.lo, b.hi, p.lo)));
}

inline DoubleDouble divide(double a, DoubleDouble b) {
  const double q = a / b.hi;
  const double remainder = fma(-q, b.lo, fma(-q, b.hi, a));
  return fast_two_sum(q, remainder / b.hi);
}

/// The polynomial with these coefficients, that of the highest power first. Unrolled by the
/// language, so that a loop over many angles is a plain one, which compilers vectorise.
template <class... C>
[[gnu::always_inline]] inline double polynomial(double x, double highest, C... lower) {
  ((highest = fma(highest, x, lower)), ...);
  return highest;
}

inline constexpr DoubleDouble ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
inline constexpr DoubleDouble inverse_two_pi = {0x1.45f306dc9c883p-3, -0x1.6b01ec5417056p-57};
/// Radians of 2^-64 turns.
inline constexpr DoubleDouble radians_per_phase = {0x1.921fb54442d18p-62, 0x1.1a62633145c07p-116};

/// Natural logarithm of a positive finite x, relative error below 2^-70.
inline DoubleDouble log(double x) {
  int exponent = 0;
  double m = __builtin_frexp(x, &exponent);
  if (m < 0x1.6a09e667f3bcdp-1) m = __builtin_ldexp(m, 1), --exponent;  // m in [sqrt(1/2), sqrt(2))
  // log m = 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...), |s| <= 0.1716. Terms from s^8/9 on are
  // below 2^-20 of the sum, so a double is enough for them.
  const DoubleDouble s = divide(m - 1, two_sum(m, 1));
  const DoubleDouble s2 = multiply(s, s);
  double tail = 1.0 / 31;
  for (int n = 29; n >= 9; n -= 2) tail = fma(tail, s2.hi, 1.0 / n);
  constexpr DoubleDouble head[] = {{0x1.2492492492492p-3, 0x1.2492492492492p-57},   // 1/7
                                   {0x1.999999999999ap-3, -0x1.999999999999ap-57},  // 1/5
                                   {0x1.5555555555555p-2, 0x1.5555555555555p-56},   // 1/3
                                   {1, 0}};
  DoubleDouble sum = {tail, 0};
  for (const DoubleDouble c : head) sum = add(multiply(sum, s2), c);
  const DoubleDouble log_m = multiply({2 * s.hi, 2 * s.lo}, sum);
  const double e = exponent;
  const DoubleDouble p = two_product(ln2.hi, e);
  return add(fast_two_sum(p.hi, fma(ln2.lo, e, p.lo)), log_m);
}

/// e^t, rounded once: error below 0.5001 ulp unless the result is subnormal.
inline double exp(DoubleDouble t) {
  if (!(t.hi < 710)) return t.hi + std::numeric_limits<double>::infinity();  // NaN stays NaN
  if (t.hi < -746) return 0;
  const double k = floor(fma(t.hi, 0x1.71547652b82fep+0, 0.5));
  const DoubleDouble p = two_product(ln2.hi, -k);
  const DoubleDouble r = add(t, fast_two_sum(p.hi, fma(ln2.lo, -k, p.lo)));  // |r| <= 0.347
  // Taylor; terms from r^7/7! on are below 2^-22 of the sum.
  constexpr double inverse_factorial[] = {
      1 / 355687428096000.0, 1 / 20922789888000.0, 1 / 1307674368000.0, 1 / 87178291200.0,
      1 / 6227020800.0,      1 / 479001600.0,      1 / 39916800.0,      1 / 3628800.0,
      1 / 362880.0,          1 / 40320.0,          1 / 5040.0};  // 1/17! .. 1/7!
  double tail = 0;
  for (const double c : inverse_factorial) tail = fma(tail, r.hi, c);
  constexpr DoubleDouble head[] = {{0x1.6c16c16c16c17p-10, -0x1.f49f49f49f49fp-65},  // 1/6!
                                   {0x1.1111111111111p-7, 0x1.1111111111111p-63},    // 1/5!
                                   {0x1.5555555555555p-5, 0x1.5555555555555p-59},    // 1/4!
                                   {0x1.5555555555555p-3, 0x1.5555555555555p-57},    // 1/3!
                                   {0.5, 0},
                                   {1, 0},
                                   {1, 0}};
  DoubleDouble sum = {tail, 0};
  for (const DoubleDouble c : head) sum = add(multiply(sum, r), c);
  return __builtin_ldexp(sum.hi, static_cast<int>(k));  // sum.hi is the rounded sum
}

/// log(base) * numerator / denominator.
inline DoubleDouble log_power(double base, double numerator, double denominator) {
  const double q = numerator / denominator;
  const double rest = fma(-q, denominator, numerator) / denominator;
  return multiply(log(base), fast_two_sum(q, rest));
}

}  // namespace detail

namespace detail {

/// high + low, wrong by at most `error`, as the double that is nearest to the true value; NaN where
/// the error leaves that open, about once in ten calls (Ziv's test).
inline double rounded_or_nan(double high, double low, double error) {
  const double least = high + (low - error);
  return least == high + (low + error) ? least : std::numeric_limits<double>::quiet_NaN();
}

/// 2^exponent m, m in [sqrt(1/2), sqrt(2)).
struct NearOne {
  double m;
  std::int64_t exponent;
};

/// A positive finite x that is not subnormal.
inline NearOne near_one(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const auto exponent = static_cast<std::int64_t>(bits - 0x3fe6a09e667f3bcdu) >> 52;
  return {std::bit_cast<double>(bits - (static_cast<std::uint64_t>(exponent) << 52)), exponent};
}

/// log(m) for m in [sqrt(1/2), sqrt(2)), wrong by less than 2^-40: 2/15 s^15 with |s| < 0.172 is
/// what the series leaves out.
inline double rough_log(double m) {
  const double s = (m - 1) / (m + 1), s2 = product(s, s);
  const double series = polynomial(s2, 2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3, 2.0);
  return product(s, series);
}

/// log(x).hi for a positive finite x, or NaN.
inline double quick_log(double x) {
  if (x < std::numeric_limits<double>::min()) return std::numeric_limits<double>::quiet_NaN();
  const auto [m, exponent] = near_one(x);
  const auto e = static_cast<double>(exponent);
  // s + s_low = (m - 1) / (m + 1), and log m = 2 s + 2 s^3 / 3 + ...
  const DoubleDouble above = two_sum(m, 1);
  const double s = (m - 1) / above.hi;
  const double s_low = fma(-s, above.lo, fma(-s, above.hi, m - 1)) / above.hi;
  const double s2 = product(s, s);
  const double series = polynomial(s2, 2.0 / 23, 2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13,
                                   2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3);
  const double tail = product(product(s, s2), series);
  const DoubleDouble p = two_product(ln2.hi, e);
  const DoubleDouble sum = two_sum(p.hi, 2 * s);
  const double low = (sum.lo + p.lo) + (fma(ln2.lo, e, 2 * s_low) + tail);
  // Nine roundings of the tail's size; those of the other low parts are below 2^-98 of the sum.
  const double error =
      fma(0x1.8p-50, __builtin_fabs(tail), product(0x1p-98, __builtin_fabs(sum.hi)));
  return rounded_or_nan(sum.hi, low, error);
}

/// exp({x, 0}) for |x| < 700, or NaN.
inline double quick_exp(double x) {
  const double k = floor(fma(x, 0x1.71547652b82fep+0, 0.5));
  const DoubleDouble p = two_product(ln2.hi, -k);
  const DoubleDouble r = two_sum(x, p.hi);  // r.hi + r_low in [-0.347, 0.347], r_low < 2^-43
  const double r_low = r.lo + fma(ln2.lo, -k, p.lo);
  const DoubleDouble half_square = two_product(0.5 * r.hi, r.hi);
  const double series =
      polynomial(r.hi, 1 / 1307674368000.0, 1 / 87178291200.0, 1 / 6227020800.0, 1 / 479001600.0,
                 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0, 1 / 5040.0, 1 / 720.0,
                 1 / 120.0, 1 / 24.0, 1 / 6.0);  // 1/15! .. 1/3!
  const double tail = product(product(product(r.hi, r.hi), r.hi), series);
  const DoubleDouble line = two_sum(1, r.hi);
  const DoubleDouble sum = two_sum(line.hi, half_square.hi);
  const double low =
      (line.lo + sum.lo) + (half_square.lo + fma(r_low, sum.hi + tail, tail));  // (e^r)' = e^r
  // Eight roundings of the tail's size, which is below 2^-7.
  const double near_one = rounded_or_nan(sum.hi, low, 0x1p-57);
  const auto exponent = static_cast<std::uint64_t>(1023 + static_cast<std::int64_t>(k));
  return product(near_one, std::bit_cast<double>(exponent << 52));
}

}  // namespace detail

/// Natural logarithm. **Error:** below 0.5001 ulp. Zero gives -inf, a negative number NaN.
inline double log(double x) {
  if (!(x > 0)) {
    return x == 0 ? -std::numeric_limits<double>::infinity()
                  : std::numeric_limits<double>::quiet_NaN();
  }
  if (x == std::numeric_limits<double>::infinity()) return x;
  const double quick = detail::quick_log(x);
  return quick == quick ? quick : detail::log(x).hi;
}

/// e^x. **Error:** below 0.5001 ulp unless the result is subnormal.
inline double exp(double x) {
  if (x > -700 && x < 700) {
    const double quick = detail::quick_exp(x);
    if (quick == quick) return quick;
  }
  return detail::exp({x, 0});
}

/// exp(x) rounded to float; for |x| <= 1 a series of 40 bits decides that but once in 30 000 calls.
inline float exp_to_float(double x) {
  if (x >= -1 && x <= 1) {
    // x^15 / 15! and what follows is below 2^-40.
    const double near =
        detail::polynomial(x, 1 / 87178291200.0, 1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0,
                           1 / 3628800.0, 1 / 362880.0, 1 / 40320.0, 1 / 5040.0, 1 / 720.0,
                           1 / 120.0, 1 / 24.0, 1 / 6.0, 0.5, 1.0, 1.0);
    const auto least = static_cast<float>(near - 0x1p-40);
    if (least == static_cast<float>(near + 0x1p-40)) return least;
  }
  return static_cast<float>(exp(x));
}

/// base^(numerator / denominator), the quotient not rounded, for 0 < base < inf and a finite
/// quotient; NaN otherwise. **Error:** below 0.501 ulp while the result is normal; exactly 1 for
/// base 1 or numerator 0.
inline double pow(double base, double numerator, double denominator = 1) {
  if (!(base > 0) || !is_finite(base)) return std::numeric_limits<double>::quiet_NaN();
  return detail::exp(detail::log_power(base, numerator, denominator));
}

/// a^(a_numerator / a_denominator) * b^(b_numerator / b_denominator), rounded once. For b = 1
/// exactly pow(a, a_numerator, a_denominator).
inline double power_product(double a, double a_numerator, double a_denominator, double b,
                            double b_numerator, double b_denominator) {
  if (!(a > 0 && b > 0) || !is_finite(a) || !is_finite(b)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return detail::exp(detail::add(detail::log_power(a, a_numerator, a_denominator),
                                 detail::log_power(b, b_numerator, b_denominator)));
}

struct SinCos {
  double sin = 0;
  double cos = 1;
};

namespace detail {

/// Sine and cosine of a.hi + a.lo, |a| <= pi / 4 (Taylor, truncated below 2^-63).
[[gnu::always_inline]] inline SinCos sincos_octant(DoubleDouble a) {
  const double x = a.hi;
  const double x2 = product(x, x);
  const double s = polynomial(x2, 1 / 355687428096000.0, -1 / 1307674368000.0, 1 / 6227020800.0,
                              -1 / 39916800.0, 1 / 362880.0, -1 / 5040.0, 1 / 120.0,
                              -1 / 6.0);  // 1/17! .. -1/3!
  const double c = polynomial(x2, -1 / 6402373705728000.0, 1 / 20922789888000.0, -1 / 87178291200.0,
                              1 / 479001600.0, -1 / 3628800.0, 1 / 40320.0, -1 / 720.0,
                              1 / 24.0);  // -1/18! .. 1/4!
  // The low part of the angle enters by its first order: sin' = cos = 1 - x^2/2, cos' = -x.
  const double half = 0.5 * x2;  // exact, so that a fused 1 - half has the same bits
  const double sin_low = fma(product(x, x2), s, product(a.lo, 1 - half));
  const double one_minus = 1 - half;
  const double cos_low = fma(product(x2, x2), c, fma(-x, a.lo, (1 - one_minus) - half));
  return {x + sin_low, one_minus + cos_low};
}

/// Turns the values of an angle by q quarter turns. Without branches: q is random to a processor.
inline SinCos rotate_quadrant(SinCos v, std::uint64_t q) {
  auto s = std::bit_cast<std::uint64_t>(v.sin);
  auto c = std::bit_cast<std::uint64_t>(v.cos);
  const std::uint64_t swap = (s ^ c) & (0 - (q & 1));
  s ^= swap ^ ((q & 2) << 62);
  c ^= swap ^ (((q + 1) & 2) << 62);
  return {std::bit_cast<double>(s), std::bit_cast<double>(c)};
}

}  // namespace detail

/// Sine and cosine of phase / 2^64 turns: the argument is reduced exactly. No branch and no
/// conversion that only some vector instruction sets have: a loop over phases is vectorised.
/// **Error:** below 2e-16 absolute.
[[gnu::always_inline]] inline SinCos sincos_turns(std::int64_t phase) {
  const auto u = static_cast<std::uint64_t>(phase);
  const std::uint64_t quadrant = (u + (std::uint64_t{1} << 61)) >> 62;
  const std::uint64_t r = u - (quadrant << 62);  // as a signed number in [-2^61, 2^61)
  // Each half of r is written into the low bits of a double's mantissa, which is exact.
  const double low = std::bit_cast<double>((r & 0xffffffffu) | 0x4330000000000000u) - 0x1p52;
  const double high =
      std::bit_cast<double>(((r >> 32) ^ 0x80000000u) | 0x4330000000000000u) - (0x1p52 + 0x1p31);
  const double hi = fma(high, 0x1p32, low);        // r, rounded
  const double lo = low - fma(high, -0x1p32, hi);  // what rounding took away
  const detail::DoubleDouble p = detail::two_product(hi, detail::radians_per_phase.hi);
  const double rest =
      fma(hi, detail::radians_per_phase.lo, fma(lo, detail::radians_per_phase.hi, p.lo));
  return detail::rotate_quadrant(detail::sincos_octant({p.hi, rest}), quadrant);
}

namespace detail {

/// round(2^64 * turns) mod 2^64, for 0 <= turns < 2^50.
inline std::uint64_t phase_of_turns(DoubleDouble turns) {
  const double whole = floor(turns.hi);
  // fraction in [0, 1); its 53 bits times 2^64 are an integer as soon as it is above 2^-12.
  const double scaled = __builtin_ldexp(turns.hi - whole, 64);
  const double integer = floor(scaled);
  const double rest = floor((scaled - integer) + (__builtin_ldexp(turns.lo, 64) + 0.5));
  return static_cast<std::uint64_t>(integer) +
         static_cast<std::uint64_t>(static_cast<std::int64_t>(rest));
}

inline DoubleDouble turns_of_radians(double radians) {
  const DoubleDouble p = two_product(radians, inverse_two_pi.hi);
  return fast_two_sum(p.hi, fma(radians, inverse_two_pi.lo, p.lo));
}

}  // namespace detail

/// Sine and cosine of an angle in radians, |radians| < 2^40. **Error:** below 2e-16 absolute;
/// relative too within pi / 4.
inline SinCos sincos(double radians) {
  const double magnitude = __builtin_fabs(radians);
  if (magnitude <= 0.785) return detail::sincos_octant({radians, 0});
  const SinCos v = sincos_turns(
      static_cast<std::int64_t>(detail::phase_of_turns(detail::turns_of_radians(magnitude))));
  return {radians < 0 ? -v.sin : v.sin, v.cos};
}

/// round(2^64 * inv_freq / 2 pi) mod 2^64: the fixed-point turns that a position advances by,
/// for 0 <= inv_freq < 2^40 in radians per token. **Error:** at most 0.51 units for inv_freq < 6.
inline std::uint64_t turns_per_token(double inv_freq) {
  return detail::phase_of_turns(detail::turns_of_radians(inv_freq));
}

}  // namespace elementary
}  // namespace ropewalk::inline ROPEWALK_ABI
