// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Llama 3.1's scaling: by parts on the turns within the trained length.

#include "ropewalk/rope/by_parts.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// w_i unchanged where the wavelength is below L / high_freq_factor, divided by s where it is
/// above L / low_freq_factor, blended linearly in the turns L w_i / 2 pi between. It is the
/// paper's NTK-by-parts with alpha = low_freq_factor, beta = high_freq_factor.
/// Source: meta-llama/llama-models, model.py (apply_scaling); Hugging Face rope_type "llama3".
struct Llama3 {
  double rope_theta = 500000;                         ///< b
  double factor = 1;                                  ///< s
  double low_freq_factor = 1;                         ///< turns within L
  double high_freq_factor = 4;                        ///< turns within L
  std::int64_t original_max_position_embeddings = 0;  ///< L, tokens; has no default

  static constexpr std::string_view name = "llama3";
  friend bool operator==(const Llama3&, const Llama3&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(factor_field, self.factor);
    visit(
        Field{.key = "low_freq_factor", .fallback = Fallback::none, .lower = 0, .lower_open = true},
        self.low_freq_factor);
    visit(
        Field{
            .key = "high_freq_factor", .fallback = Fallback::none, .lower = 0, .lower_open = true},
        self.high_freq_factor);
    visit(original_length_field, self.original_max_position_embeddings);
  }
  void check(RotaryShape) const {
    check_fields(*this);
    check_order(name, "high_freq_factor", high_freq_factor, "low_freq_factor", low_freq_factor);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    index_t pair = 0;
    for (double& out : inv_freq) {
      const double w = plain_frequency(rope_theta, pair++, shape.rotary_dim);
      out = blend(
          w / factor, w,
          rotation_weight(w, original_max_position_embeddings, low_freq_factor, high_freq_factor));
    }
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<Llama3>);

}  // namespace ropewalk::inline ROPEWALK_ABI
