// SPDX-License-Identifier: Apache-2.0
/// \file
/// A frequency policy without fill() is refused by the concept's name.
// EXPECT: satisf[a-z]+( of)? 'FrequencyPolicy
// EXPECT: 'p\.fill\(shape, inv_freq\)'

#include <cstdint>
#include <span>
#include <string_view>

#include "ropewalk/rope/frequency_plan.hpp"

struct Halved {
  static constexpr std::string_view name = "halved";
  double rope_theta = 10000;
  friend bool operator==(const Halved&, const Halved&) = default;
  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit({.key = "rope_theta"}, self.rope_theta);
  }
  void check(ropewalk::RotaryShape) const {}
#ifndef MISUSE
  void fill(ropewalk::RotaryShape, std::span<double> inv_freq) const {
    for (double& w : inv_freq) w = 0.5;
  }
#endif
  double attention_factor(ropewalk::RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};

ropewalk::FrequencyPlan plan() {
  return ropewalk::make_frequency_plan(Halved{}, {.rotary_dim = 64});
}
