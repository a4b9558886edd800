// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Rotary embeddings that turn the fastest pairs of the whole head and leave the others still:
/// p-RoPE, and Gemma 4's `proportional`.

#include "ropewalk/rope/policy_support.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// How many of the d / 2 pairs turn: p d / 2 rounded down, computed as int(p * d // 2) in double.
inline index_t turning_pairs(double share, index_t rotary_dim) {
  return static_cast<index_t>(elementary::floor(share * static_cast<double>(rotary_dim) / 2));
}

/// w_i = b^(-2i/d) / s for the first k pairs, 0 for the others.
inline void fill_proportional(double rope_theta, double factor, double share, RotaryShape shape,
                              std::span<double> inv_freq) {
  const index_t turning = turning_pairs(share, shape.rotary_dim);
  index_t pair = 0;
  for (double& w : inv_freq) {
    w = pair < turning ? plain_frequency(rope_theta, pair, shape.rotary_dim) / factor : 0;
    ++pair;
  }
}

/// A share of at most 1; above 0 is the field's own rule. A head of which no pair turns has no
/// rotary embedding at all, which is said otherwise.
inline void check_share(std::string_view method, std::string_view key, double share,
                        RotaryShape shape) {
  if (!(share <= 1)) fail_field(method, key, number_text(share), "at most 1");
  if (shape.rotary_dim != 0 && turning_pairs(share, shape.rotary_dim) == 0) {
    fail_field(method, key, number_text(share),
               "a share of at least one of the " + std::to_string(shape.rotary_dim / 2) + " pairs");
  }
}

/// Gemma 4's partial rotation: exponents and pairs are those of the whole head, the slowest pairs
/// stand still. Here partial_rotary_factor means the share of the pairs that turn; in every other
/// method it cuts the head. Source: transformers, modeling_rope_utils.py, rope_type "proportional".
struct Proportional {
  double rope_theta = 10000;         ///< b
  double factor = 1;                 ///< s, divides all frequencies
  double partial_rotary_factor = 1;  ///< p, share of the pairs that turn

  static constexpr std::string_view name = "proportional";
  friend bool operator==(const Proportional&, const Proportional&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(Field{.key = "factor", .lower = 1}, self.factor);
    visit(Field{.key = "partial_rotary_factor",
                .fallback = Fallback::none,
                .lower = 0,
                .lower_open = true},
          self.partial_rotary_factor);
  }
  void check(RotaryShape shape) const {
    check_fields(*this);
    check_share(name, "partial_rotary_factor", partial_rotary_factor, shape);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    fill_proportional(rope_theta, factor, partial_rotary_factor, shape, inv_freq);
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<Proportional>);

/// The same with the paper's names: the highest frequencies are kept, a share p of them.
/// Source: p-RoPE, "Round and Round We Go" (2410.06205).
struct PRope {
  double rope_theta = 10000;  ///< b
  double p = 1;               ///< share of the pairs that turn

  static constexpr std::string_view name = "p_rope";
  friend bool operator==(const PRope&, const PRope&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(Field{.key = "p", .fallback = Fallback::none, .lower = 0, .lower_open = true}, self.p);
  }
  void check(RotaryShape shape) const {
    check_fields(*this);
    check_share(name, "p", p, shape);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    fill_proportional(rope_theta, 1, p, shape, inv_freq);
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};
static_assert(FrequencyPolicy<PRope>);

}  // namespace ropewalk::inline ROPEWALK_ABI
