// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// SoftmaxState: the running (reference, sum) of an online softmax with an integer reference.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Scores are kept in units of ln 2: natural scores times log2(e).
inline constexpr double log2_e = 1.44269504088896340736;
inline constexpr double ln_2 = 0.693147180559945309417;

/// 2^exponent as a float for exponent <= 0; 0 where it would be subnormal. No branch: whether a
/// reference moves is a coin's toss in the first blocks of a row.
constexpr float power_of_two(std::int64_t exponent) {
  const auto biased = static_cast<std::uint32_t>((exponent < -127 ? -127 : exponent) + 127);
  return std::bit_cast<float>(biased << 23);
}

/// Softmax of scores in log2 units, read in pieces: sum = sum over keys of 2^(s - reference). The
/// reference is an even integer (simd/math.hpp tells why), so moving it multiplies by an exact
/// power of two and the bits of the result do not depend on it, nor on how the keys were cut
/// (arXiv:1805.02867, made exact).
struct SoftmaxState {
  /// Reference of a row that has seen no key.
  static constexpr std::int32_t nothing_seen = std::numeric_limits<std::int32_t>::min() / 2;
  /// Scores beyond this are taken for an overflow: the row becomes NaN rather than wrong.
  static constexpr float score_limit = 0x1p21f;

  std::int32_t reference = nothing_seen;
  double sum = 0;

  /// Raises the reference for scores of at most `largest`, and gives the factor by which what was
  /// accumulated with the old one must be multiplied.
  float raise(float largest) {
    if (!(std::fabs(largest) < score_limit)) {
      sum = std::numeric_limits<double>::quiet_NaN();
      largest = 0;
    }
    const auto rounded = 2 * static_cast<std::int32_t>(std::nearbyint(largest / 2));
    const std::int32_t raised = rounded > reference ? rounded : reference;
    const float factor = power_of_two(std::int64_t{reference} - raised);
    reference = raised;
    sum *= static_cast<double>(factor);
    return factor;
  }
  bool empty() const { return reference == nothing_seen; }

  /// log sum e^(natural score), natural log; -inf for a row that has seen no key.
  double lse() const {
    if (empty()) return -std::numeric_limits<double>::infinity();
    if (!(sum > 0)) return std::numeric_limits<double>::quiet_NaN();
    int exponent = 0;
    const double mantissa = std::frexp(sum, &exponent);
    return std::fma(static_cast<double>(reference) + exponent, ln_2, elementary::log(mantissa));
  }
  /// lse() rounded to float, which a logarithm of 40 bits decides but once in some 100 000 rows.
  float rounded_lse() const {
    if (sum > 0x1p-1000 && sum < 0x1p1000) {
      const auto [m, exponent] = elementary::detail::near_one(sum);
      const double near = elementary::fma(static_cast<double>(reference + exponent), ln_2,
                                          elementary::detail::rough_log(m));
      // The logarithm's error; roundings here and in lse(), and ln_2's own error.
      const double error = elementary::fma(std::fabs(near), 0x1p-50, 0x1p-40);
      const auto least = static_cast<float>(near - error);
      if (least == static_cast<float>(near + error)) return least;
    }
    return static_cast<float>(lse());
  }
};

/// Factors of two states when they become one; an output that was accumulated (not yet divided by
/// its sum) merges as fma(a, factors.a, b * factors.b).
struct MergeFactors {
  float a = 1;
  float b = 1;
};

/// Merges the state of later keys, `b`, into that of earlier keys, `a`. Equal to one pass over all
/// keys bit for bit when a and b end and begin at a key block.
inline MergeFactors merge(SoftmaxState& a, const SoftmaxState& b) {
  if (b.empty()) return {1, 0};
  MergeFactors f;
  if (b.reference > a.reference) {
    f.a = a.raise(static_cast<float>(b.reference));
  } else {
    f.b = power_of_two(std::int64_t{b.reference} - a.reference);
  }
  a.sum += b.sum * static_cast<double>(f.b);
  return f;
}

/// Merges finished pieces of attention over disjoint keys: output_a = the softmax-weighted mean
/// over both, lse_a = its lse. For pieces that other processes or kernels have made; rounds, unlike
/// merge(). outputs: (size); lse natural.
inline void merge_finished(float* output_a, double& lse_a, const float* output_b, double lse_b,
                           index_t size) {
  if (lse_b == -std::numeric_limits<double>::infinity()) return;
  const double high = lse_a > lse_b ? lse_a : lse_b;
  const double a = elementary::exp(lse_a - high), b = elementary::exp(lse_b - high);
  const double total = a + b;
  for (index_t i = 0; i < size; ++i) {
    const double mixed =
        std::fma(a, static_cast<double>(output_a[i]), b * static_cast<double>(output_b[i]));
    output_a[i] = static_cast<float>(mixed / total);
  }
  lse_a = high + elementary::log(total);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
