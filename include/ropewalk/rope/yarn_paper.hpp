// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// YaRN as its paper writes it: by parts on the turns within the trained length, with a magnitude.

#include "ropewalk/rope/by_parts.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// w_i = (1 - g) b^(-2i/d) / s + g b^(-2i/d), g = clamp((r_i - alpha) / (beta - alpha), 0, 1),
/// r_i = L b^(-2i/d) / 2 pi; alpha is the key beta_slow, beta the key beta_fast.
/// cos and sin are multiplied by attention_factor, by default 0.1 ln s + 1: the paper calls the
/// ramp without it NTK-by-parts (definition 2), which attention_factor=1 gives, and with it YaRN
/// (definition 3). Source: YaRN (2309.00071), 3.2-3.4.
struct YarnPaper {
  double rope_theta = 10000;                                       ///< b
  double factor = 1;                                               ///< s
  std::int64_t original_max_position_embeddings = 0;               ///< L, tokens; has no default
  std::optional<double> attention_factor_override = std::nullopt;  ///< key attention_factor
  double beta_fast = 32;                                           ///< beta, turns within L
  double beta_slow = 1;                                            ///< alpha, turns within L

  static constexpr std::string_view name = "yarn_paper";
  friend bool operator==(const YarnPaper&, const YarnPaper&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(factor_field, self.factor);
    visit(original_length_field, self.original_max_position_embeddings);
    visit(attention_factor_field, self.attention_factor_override);
    visit(beta_fast_field, self.beta_fast);
    visit(beta_slow_field, self.beta_slow);
  }
  void check(RotaryShape) const {
    check_fields(*this);
    check_order(name, "beta_fast", beta_fast, "beta_slow", beta_slow);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    index_t pair = 0;
    for (double& out : inv_freq) {
      const double w = plain_frequency(rope_theta, pair++, shape.rotary_dim);
      out = blend(w / factor, w,
                  rotation_weight(w, original_max_position_embeddings, beta_slow, beta_fast));
    }
  }
  double attention_factor(RotaryShape) const {
    return attention_factor_override.value_or(yarn_magnitude(factor));
  }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<YarnPaper>);

}  // namespace ropewalk::inline ROPEWALK_ABI
