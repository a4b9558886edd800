// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// NTK-by-parts as the yarn repository had it before YaRN: linear, NTK-aware and plain in one head.

#include "ropewalk/rope/by_parts.hpp"
#include "ropewalk/rope/ntk_aware.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Two ramps on the pair index: from NTK-aware to linear between 1.25 and 0.75 turns within L, and
/// from plain to that mixture between 16 and 2 turns.
/// Source: jquesnelle/yarn, LlamaPartNTKScaledRotaryEmbedding; ntk_factor and
/// extrapolation_factor are its switches, weights in [0, 1] of the two.
struct NtkByParts {
  double rope_theta = 10000;                          ///< b
  double factor = 1;                                  ///< s
  std::int64_t original_max_position_embeddings = 0;  ///< L, tokens; has no default
  double ntk_factor = 1;
  double extrapolation_factor = 1;

  static constexpr std::string_view name = "ntk_by_parts";
  friend bool operator==(const NtkByParts&, const NtkByParts&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(factor_field, self.factor);
    visit(original_length_field, self.original_max_position_embeddings);
    visit(Field{.key = "ntk_factor", .lower = 0}, self.ntk_factor);
    visit(Field{.key = "extrapolation_factor", .lower = 0}, self.extrapolation_factor);
  }
  void check(RotaryShape shape) const {
    check_fields(*this);
    check_weight("ntk_factor", ntk_factor);
    check_weight("extrapolation_factor", extrapolation_factor);
    check_ramp_length(name, original_max_position_embeddings, 2);
    check_ntk_shape(name, shape);
    if (shape.rotary_dim == 0) return;
    check_range(name, linear_range(shape), rope_theta);
    check_range(name, plain_range(shape), rope_theta);
  }
  /// Between NTK-aware (below) and linear (above).
  CorrectionRange linear_range(RotaryShape shape) const {
    return correction_range(1.25, 0.75, rope_theta, original_max_position_embeddings,
                            shape.rotary_dim, true);
  }
  /// Between plain (below) and the mixture (above).
  CorrectionRange plain_range(RotaryShape shape) const {
    return correction_range(16, 2, rope_theta, original_max_position_embeddings, shape.rotary_dim,
                            true);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    const CorrectionRange to_linear = linear_range(shape), from_plain = plain_range(shape);
    index_t pair = 0;
    for (double& out : inv_freq) {
      const double w = plain_frequency(rope_theta, pair, shape.rotary_dim);
      const double ntk = ntk_frequency(rope_theta, factor, pair, shape.rotary_dim);
      const double mixed = blend(w / factor, ntk, index_weight(pair, to_linear) * ntk_factor);
      out = blend(mixed, w, index_weight(pair, from_plain) * extrapolation_factor);
      ++pair;
    }
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }

 private:
  static void check_weight(std::string_view key, double weight) {
    if (weight > 1) fail_field(name, key, number_text(weight), "a weight in [0, 1]");
  }
};
static_assert(FrequencyPolicy<NtkByParts>);

}  // namespace ropewalk::inline ROPEWALK_ABI
