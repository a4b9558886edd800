// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// YaRN as its repository and Hugging Face compute it: by parts on the pair index, with a
/// magnitude.

#include "ropewalk/rope/by_parts.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// w_i between b^(-2i/d) / s and b^(-2i/d), blended linearly in i between the pairs that make
/// beta_fast and beta_slow turns within L.
/// cos and sin are multiplied by attention_factor if set; else by g(mscale) / g(mscale_all_dim) if
/// both are set and not 0; else by g(1), where g(k) = 0.1 k ln s + 1.
/// Source: YaRN (2309.00071), 3.2-3.4; transformers, modeling_rope_utils.py. The paper's text has
/// another ramp: YarnPaper.
struct Yarn {
  double rope_theta = 10000;                                       ///< b
  double factor = 1;                                               ///< s
  std::int64_t original_max_position_embeddings = 0;               ///< L, tokens; has no default
  std::optional<double> attention_factor_override = std::nullopt;  ///< key attention_factor
  double beta_fast = 32;                                           ///< turns within L
  double beta_slow = 1;                                            ///< turns within L
  std::optional<double> mscale = std::nullopt;
  std::optional<double> mscale_all_dim = std::nullopt;
  bool truncate = true;  ///< round the ramp's ends outwards to whole pairs

  static constexpr std::string_view name = "yarn";
  friend bool operator==(const Yarn&, const Yarn&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(factor_field, self.factor);
    visit(original_length_field, self.original_max_position_embeddings);
    visit(attention_factor_field, self.attention_factor_override);
    visit(beta_fast_field, self.beta_fast);
    visit(beta_slow_field, self.beta_slow);
    visit(Field{.key = "mscale", .lower = 0}, self.mscale);
    visit(Field{.key = "mscale_all_dim", .lower = 0}, self.mscale_all_dim);
    visit(Field{.key = "truncate"}, self.truncate);
  }
  void check(RotaryShape shape) const {
    check_fields(*this);
    check_order(name, "beta_fast", beta_fast, "beta_slow", beta_slow);
    check_ramp_length(name, original_max_position_embeddings, beta_slow);
    if (shape.rotary_dim != 0) check_range(name, range(shape), rope_theta);
  }
  CorrectionRange range(RotaryShape shape) const {
    return correction_range(beta_fast, beta_slow, rope_theta, original_max_position_embeddings,
                            shape.rotary_dim, truncate);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    const CorrectionRange ramp = range(shape);
    index_t pair = 0;
    for (double& out : inv_freq) {
      const double w = plain_frequency(rope_theta, pair, shape.rotary_dim);
      out = blend(w / factor, w, index_weight(pair, ramp));
      ++pair;
    }
  }
  double attention_factor(RotaryShape) const {
    if (attention_factor_override) return *attention_factor_override;
    const double k = mscale.value_or(0), all = mscale_all_dim.value_or(0);
    if (k != 0 && all != 0) return yarn_magnitude(factor, k) / yarn_magnitude(factor, all);
    return yarn_magnitude(factor);
  }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<Yarn>);

}  // namespace ropewalk::inline ROPEWALK_ABI
