// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The by-parts family's parts: which pairs to leave alone and which to interpolate, and the blend.

#include <optional>

#include "ropewalk/rope/policy_support.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

inline constexpr double two_pi = 0x1.921fb54442d18p+2;

/// A weight in [0, 1] per pair: 1 leaves its frequency alone, 0 interpolates it.
/// `blend` mixes the two; both ends give their frequency bit for bit, and so do equal frequencies.
inline double blend(double interpolated, double original, double weight) {
  if (weight == 1) return original;
  return elementary::fma(weight, original - interpolated, interpolated);
}

/// x limited to [0, 1].
inline double unit_clamp(double x) { return x < 0 ? 0.0 : x > 1 ? 1.0 : x; }

/// Pair indices between which the index ramp falls from 1 to 0.
struct CorrectionRange {
  double low = 0;
  double high = 0;
};

/// The (real) pair index whose frequency makes `rotations` turns within `length` tokens:
/// d ln(L / (2 pi r)) / (2 ln b).
inline double correction_index(double rotations, double rope_theta, std::int64_t length,
                               index_t rotary_dim) {
  const double turns = static_cast<double>(length) / (two_pi * rotations);
  return static_cast<double>(rotary_dim) * elementary::log(turns) /
         (2 * elementary::log(rope_theta));
}

/// The range between `fast` and `slow` rotations, rounded outwards if `truncate`, clamped to
/// [0, d - 1] (d - 1, not the last pair d/2 - 1: as the yarn repository and Hugging Face).
inline CorrectionRange correction_range(double fast, double slow, double rope_theta,
                                        std::int64_t length, index_t rotary_dim, bool truncate) {
  CorrectionRange r = {correction_index(fast, rope_theta, length, rotary_dim),
                       correction_index(slow, rope_theta, length, rotary_dim)};
  if (truncate) r = {elementary::floor(r.low), elementary::ceil(r.high)};
  const auto last = static_cast<double>(rotary_dim - 1);
  if (r.low < 0) r.low = 0;
  if (r.high > last) r.high = last;
  if (r.low == r.high) r.high += 0.001;  // a step: prevents 0 / 0
  return r;
}

/// Ramp on the pair's index.
inline double index_weight(index_t pair, CorrectionRange range) {
  return 1 - unit_clamp((static_cast<double>(pair) - range.low) / (range.high - range.low));
}

/// Ramp on the turns that the pair makes within `length` tokens, L w / 2 pi.
inline double rotation_weight(double inv_freq, std::int64_t length, double slow, double fast) {
  const double rotations = static_cast<double>(length) * inv_freq / two_pi;
  return unit_clamp((rotations - slow) / (fast - slow));
}

/// YaRN's magnitude for the factor s: 0.1 k ln s + 1, and 1 up to s = 1.
inline double yarn_magnitude(double factor, double k = 1) {
  return factor <= 1 ? 1.0 : elementary::fma(0.1 * k, elementary::log(factor), 1.0);
}

inline constexpr Field attention_factor_field = {
    .key = "attention_factor", .lower = 0, .lower_open = true};
inline constexpr Field beta_fast_field = {.key = "beta_fast", .lower = 0, .lower_open = true};
inline constexpr Field beta_slow_field = {.key = "beta_slow", .lower = 0, .lower_open = true};

/// `upper` must exceed `lower`: the ramp between them divides by the difference.
inline void check_order(std::string_view method, std::string_view upper_key, double upper,
                        std::string_view lower_key, double lower) {
  if (!(upper > lower)) {
    fail_field(method, upper_key, number_text(upper),
               "more than " + std::string(lower_key) + " = " + number_text(lower));
  }
}

/// The index ramp inverts, and nothing is interpolated, when no pair is slow enough: L must hold
/// `slow` turns of the fastest pair.
inline void check_ramp_length(std::string_view method, std::int64_t length, double slow) {
  if (static_cast<double>(length) < two_pi * slow) {
    fail_field(
        method, original_length_field.key, std::to_string(length),
        "at least 2 pi * " + number_text(slow) + " = " + number_text(two_pi * slow) + " tokens");
  }
}

/// At the other end: when every pair, and even index d - 1, turns faster than `fast`, the clamped
/// range is inverted and would interpolate all pairs instead of none.
inline void check_range(std::string_view method, CorrectionRange range, double rope_theta) {
  if (range.low > range.high) {
    fail_field(method, "rope_theta", number_text(rope_theta),
               "a base with a pair slow enough to interpolate (the ramp would start at index " +
                   number_text(range.low) + ", past the head)",
               "Raise rope_theta, or use default");
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
