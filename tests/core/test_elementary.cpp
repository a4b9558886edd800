// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/hash.hpp"
#include "ropewalk/core/rng.hpp"

namespace ropewalk {
namespace {

// The reference is the long double of libm: 64 bits on x86, its errors below 0.001 ulp of a double.
constexpr bool wide_reference = LDBL_MANT_DIG >= 64;

/// |got - truth| in units of the last place of the truth as a double.
double ulps(double got, long double truth) {
  int exponent = 0;
  std::frexp(static_cast<double>(truth), &exponent);
  return static_cast<double>(std::fabs(static_cast<long double>(got) - truth) /
                             std::ldexp(1.0L, exponent - 53));
}

constexpr Random random_numbers{.seed = 1, .stream = 0, .step = 0};

double uniform(std::uint64_t i, double low, double high) {
  return std::fma(high - low, random_numbers.uniform(i), low);
}

/// round(2^64 inv_freq / 2 pi) for inv_freq < 6, in integers: 53 bits times 1 / 2 pi to 128 bits.
std::uint64_t turns_reference(double inv_freq) {
  __extension__ using Wide = unsigned __int128;
  constexpr std::uint64_t high = 0x28be60db9391054aull, low = 0x7f09d5f47d4d3770ull;
  int exponent = 0;
  const double mantissa = std::frexp(inv_freq, &exponent);
  const auto m = static_cast<std::uint64_t>(std::ldexp(mantissa, 53));
  const Wide product = static_cast<Wide>(m) * high + ((static_cast<Wide>(m) * low) >> 64);
  const int shift = 53 - exponent;
  return static_cast<std::uint64_t>((product + (static_cast<Wide>(1) << (shift - 1))) >> shift);
}

}  // namespace

TEST_CASE("core/elementary: log, exp and pow are rounded to the nearest double") {
  if (!wide_reference) {
    MESSAGE("skipped: long double is no wider than double here");
    return;
  }
  double worst_log = 0, worst_exp = 0, worst_pow = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double near_one = uniform(4 * i, 0.9, 1.1);
    const double any = std::ldexp(uniform(4 * i, 1, 2), static_cast<int>(i % 2000) - 1000);
    const double x = i % 2 == 0 ? near_one : any;
    worst_log =
        std::max(worst_log, ulps(elementary::log(x), std::log(static_cast<long double>(x))));
    const double y = i % 2 == 0 ? uniform(4 * i + 1, -2, 2) : uniform(4 * i + 1, -700, 700);
    worst_exp =
        std::max(worst_exp, ulps(elementary::exp(y), std::exp(static_cast<long double>(y))));
    const double base = elementary::exp(uniform(4 * i + 2, 0.1, 20));
    const double numerator = -2.0 * static_cast<double>(i % 64);
    worst_pow = std::max(worst_pow, ulps(elementary::pow(base, numerator, 128),
                                         std::pow(static_cast<long double>(base),
                                                  static_cast<long double>(numerator) / 128.0L)));
  }
  // A correctly rounded result is within 0.5; the rest is the reference's own error.
  CHECK(worst_log < 0.501);
  CHECK(worst_exp < 0.501);
  CHECK(worst_pow < 0.502);
}

TEST_CASE("core/elementary: the quick logarithm and exponential have the bits of the slow ones") {
  const Random random{.seed = 8, .stream = 1, .step = 0};
  int logs = 0, exps = 0;
  constexpr int count = 400000;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double u = random.uniform(2 * i), v = random.uniform(2 * i + 1);
    // Of all magnitudes, near 1 from far to close, and near 0.
    double x = i % 3 == 0 ? std::ldexp(1 + u, static_cast<int>(v * 2098) - 1074)
                          : 1 + (u - 0.5) * std::ldexp(1.0, -static_cast<int>(v * 53));
    if (i % 3 == 2) x = 1 + std::ldexp(std::floor(u * 4096) - 2048, -53 + static_cast<int>(v * 8));
    const double y =
        i % 2 == 0 ? (u - 0.5) * 1400 : (u - 0.5) * std::ldexp(2.0, -static_cast<int>(v * 70));
    const double quick_log = elementary::detail::quick_log(x);
    const double quick_exp = elementary::detail::quick_exp(y);
    const double slow_log = elementary::detail::log(x).hi,
                 slow_exp = elementary::detail::exp({y, 0});
    if (!std::isnan(quick_log)) {
      REQUIRE(quick_log == slow_log);
      ++logs;
    }
    if (!std::isnan(quick_exp)) {
      REQUIRE(quick_exp == slow_exp);
      ++exps;
    }
    REQUIRE(elementary::log(x) == slow_log);
    REQUIRE(elementary::exp(y) == slow_exp);
  }
  // The quick ones decide most: otherwise they are of no use.
  CHECK(logs > count * 3 / 4);
  CHECK(exps > count * 3 / 4);
  CHECK(logs < count);
  CHECK(exps < count);
  MESSAGE("decided: " << 100.0 * logs / count << " % and " << 100.0 * exps / count << " %");
}

TEST_CASE(
    "core/elementary: an exponential as a float is the rounded one, also where that is close") {
  const Random random{.seed = 9, .stream = 1, .step = 0};
  const auto check = [](double x) {
    CAPTURE(x);
    REQUIRE(elementary::exp_to_float(x) == static_cast<float>(elementary::exp(x)));
  };
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double u = random.uniform(i);
    check(2 * u - 1);
    check((u - 0.5) * std::ldexp(1.0, -static_cast<int>(i % 60)));
    check((u - 0.5) * 300);
    // Beside the point where rounding turns: log of a float and a half of its last place.
    const float value = elementary::exp_to_float(2 * u - 1);
    const double next = static_cast<double>(std::nextafter(value, 9.0f));
    const double turn = std::log((static_cast<double>(value) + next) / 2);
    for (const double step : {-1e-12, -5e-13, -1e-14, -1e-16, 0.0, 1e-16, 1e-14, 5e-13, 1e-12}) {
      check(turn + step);
    }
  }
  check(1), check(-1), check(0), check(std::nextafter(1.0, 2.0)), check(-200), check(200);
  CHECK(std::isnan(elementary::exp_to_float(std::numeric_limits<double>::quiet_NaN())));
}

TEST_CASE("core/elementary: power_product is rounded once") {
  if (!wide_reference) {
    MESSAGE("skipped: long double is no wider than double here");
    return;
  }
  double worst = 0;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const double a = uniform(2 * i, 2, 1e7), b = uniform(2 * i + 1, 1, 100);
    const double n = -2.0 * static_cast<double>(i % 64);
    const long double truth =
        std::pow(static_cast<long double>(a), static_cast<long double>(n) / 128.0L) *
        std::pow(static_cast<long double>(b), static_cast<long double>(n) / 126.0L);
    worst = std::max(worst, ulps(elementary::power_product(a, n, 128, b, n, 126), truth));
    CHECK(elementary::power_product(a, n, 128, 1, n, 126) == elementary::pow(a, n, 128));
  }
  CHECK(worst < 0.51);  // the reference's exponents n / 126 are themselves rounded
}

TEST_CASE("core/elementary: special values") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK(elementary::log(1) == 0);
  CHECK(elementary::log(0) == -infinity);
  CHECK(elementary::log(infinity) == infinity);
  CHECK(std::isnan(elementary::log(-1)));
  CHECK(std::isnan(elementary::log(std::nan(""))));
  CHECK(elementary::exp(0) == 1);
  CHECK(elementary::exp(1000) == infinity);
  CHECK(elementary::exp(-1000) == 0);
  CHECK(elementary::exp(-infinity) == 0);
  CHECK(std::isnan(elementary::exp(std::nan(""))));
  CHECK(elementary::exp(-745) == std::numeric_limits<double>::denorm_min());
  CHECK(elementary::pow(12345.678, 0) == 1);
  CHECK(elementary::pow(1, 1e300) == 1);
  CHECK(elementary::pow(2, 10) == 1024);
  CHECK(elementary::pow(10000, -1, 2) == 0.01);
  CHECK(elementary::pow(8, 1, 3) == 2);
  CHECK(std::isnan(elementary::pow(0, 1)));
  CHECK(std::isnan(elementary::pow(-2, 2)));
  CHECK(std::isnan(elementary::pow(infinity, 0)));
  CHECK_FALSE(elementary::is_finite(infinity));
  CHECK_FALSE(elementary::is_finite(std::nan("")));
  CHECK(elementary::is_finite(1e308));
}

TEST_CASE("core/elementary: sine and cosine of turns are within 2e-16") {
  const long double radians_per_phase = std::ldexp(std::acos(-1.0L), -63);
  double worst = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    auto phase = static_cast<std::int64_t>(random_numbers.bits(i));
    if (i % 3 == 0) phase >>= i % 60;
    const elementary::SinCos v = elementary::sincos_turns(phase);
    const long double a = static_cast<long double>(phase) * radians_per_phase;
    worst = std::max(worst,
                     static_cast<double>(std::fabs(std::sin(a) - static_cast<long double>(v.sin))));
    worst = std::max(worst,
                     static_cast<double>(std::fabs(std::cos(a) - static_cast<long double>(v.cos))));
  }
  CHECK(worst < 2e-16);
  // The quadrants' borders are exact.
  constexpr std::int64_t quarter = std::int64_t{1} << 62;
  CHECK(elementary::sincos_turns(0).cos == 1);
  CHECK(elementary::sincos_turns(0).sin == 0);
  CHECK(elementary::sincos_turns(quarter).sin == 1);
  CHECK(elementary::sincos_turns(quarter).cos == 0);
  CHECK(elementary::sincos_turns(-quarter).sin == -1);
  CHECK(elementary::sincos_turns(std::numeric_limits<std::int64_t>::min()).cos == -1);
}

TEST_CASE("core/elementary: sine and cosine of radians up to 1e8") {
  if (!wide_reference) {
    MESSAGE("skipped: long double is no wider than double here");
    return;
  }
  double worst = 0, worst_small = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double x = i % 2 == 0 ? uniform(i, -10, 10) : uniform(i, -1e8, 1e8);
    const elementary::SinCos v = elementary::sincos(x);
    worst = std::max(worst, static_cast<double>(std::fabs(std::sin(static_cast<long double>(x)) -
                                                          static_cast<long double>(v.sin))));
    worst = std::max(worst, static_cast<double>(std::fabs(std::cos(static_cast<long double>(x)) -
                                                          static_cast<long double>(v.cos))));
    const double small = std::ldexp(uniform(i, -0.75, 0.75), -static_cast<int>(i % 60));
    if (small == 0) continue;
    worst_small = std::max(worst_small, ulps(elementary::sincos(small).sin,
                                             std::sin(static_cast<long double>(small))));
  }
  CHECK(worst < 2e-16);
  CHECK(worst_small < 0.6);
}

TEST_CASE("core/elementary: turns per token agree with integer arithmetic") {
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double w = i % 2 == 0 ? uniform(i, 1e-3, 6) : elementary::exp(uniform(i, -20, 0));
    const std::uint64_t difference = elementary::turns_per_token(w) - turns_reference(w);
    CHECK((difference + 1 <= 2));  // -1, 0 or 1: one unit where the fraction is a tie
  }
  CHECK(elementary::turns_per_token(0) == 0);
  CHECK(elementary::turns_per_token(1) == 2935890503282001226ull);
  // A full turn more does not count: 1 + 2 pi, rounded to a double, is 2.2e-16 from its value.
  const auto wrapped = static_cast<std::int64_t>(
      elementary::turns_per_token(1 + 2 * std::acos(-1.0)) - elementary::turns_per_token(1));
  CHECK(std::fabs(std::ldexp(static_cast<double>(wrapped), -64)) < 2e-16);
}

TEST_CASE("core/elementary: the bits are those of every machine") {
  Hasher hash;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const double u = random_numbers.uniform(i);
    hash.value(elementary::log(u + 0.5)).value(elementary::exp(20 * (u - 0.5)));
    hash.value(elementary::pow(1e4, -static_cast<double>(i), 128));
    const elementary::SinCos v = elementary::sincos(1e6 * u);
    hash.value(v.sin).value(v.cos).value(elementary::turns_per_token(u));
  }
  CHECK(hash_text(hash.digest()) == "2c8b768c0dd8a15d");
}

}  // namespace ropewalk
