// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// NTK-aware scaling: the base raised so that the slowest pair slows by the factor.

#include "ropewalk/rope/policy_support.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// b'^(-2i/d) for b' = b s^(d/(d-2)), in one rounding: pair 0 is untouched, the last pair turns as
/// under position interpolation. For s = 1 the bits are those of plain_frequency.
inline double ntk_frequency(double rope_theta, double scale, index_t pair, index_t rotary_dim) {
  const double minus_2i = -2 * static_cast<double>(pair);
  const auto d = static_cast<double>(rotary_dim);
  return elementary::power_product(rope_theta, minus_2i, d, scale, minus_2i, d - 2);
}

/// w_i = b'^(-2i/d), b' = b s^(d/(d-2)), d > 2.
/// Source: bloc97, "NTK-Aware Scaled RoPE" (2023); YaRN (2309.00071), 3.1, definition 1.
struct NtkAware {
  double rope_theta = 10000;  ///< b
  double factor = 1;          ///< s

  static constexpr std::string_view name = "ntk";
  friend bool operator==(const NtkAware&, const NtkAware&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(factor_field, self.factor);
  }
  void check(RotaryShape shape) const {
    check_fields(*this);
    check_ntk_shape(name, shape);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    index_t pair = 0;
    for (double& w : inv_freq) w = ntk_frequency(rope_theta, factor, pair++, shape.rotary_dim);
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<NtkAware>);

}  // namespace ropewalk::inline ROPEWALK_ABI
