// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Plain rotary embeddings, and with a larger base the adjusted-base method (ABF).

#include "ropewalk/rope/policy_support.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// w_i = b^(-2i/d). Source: RoFormer (2104.09864); ABF: Xiong et al. (2309.16039), 2.2.
struct AdjustedBase {
  double rope_theta = 10000;  ///< b

  static constexpr std::string_view name = "default";
  friend bool operator==(const AdjustedBase&, const AdjustedBase&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
  }
  void check(RotaryShape) const { check_fields(*this); }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    index_t pair = 0;
    for (double& w : inv_freq) w = plain_frequency(rope_theta, pair++, shape.rotary_dim);
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<AdjustedBase>);

}  // namespace ropewalk::inline ROPEWALK_ABI
