// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Position interpolation: all frequencies divided by one factor.

#include "ropewalk/rope/policy_support.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// w_i = b^(-2i/d) / s, so that position s p turns as position p did.
/// Source: Chen et al. (2306.15595), 2.3; Hugging Face rope_type "linear".
struct LinearInterpolation {
  double rope_theta = 10000;  ///< b
  double factor = 1;          ///< s

  static constexpr std::string_view name = "linear";
  friend bool operator==(const LinearInterpolation&, const LinearInterpolation&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(factor_field, self.factor);
  }
  void check(RotaryShape) const { check_fields(*this); }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    index_t pair = 0;
    for (double& w : inv_freq) w = plain_frequency(rope_theta, pair++, shape.rotary_dim) / factor;
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<LinearInterpolation>);

}  // namespace ropewalk::inline ROPEWALK_ABI
