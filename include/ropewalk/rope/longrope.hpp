// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// LongRoPE: a divisor found by search for every pair, one list up to the trained length and one
/// beyond.

#include <vector>

#include "ropewalk/rope/policy_support.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// w_i = b^(-2i/d) / f_i, f = short_factor for T <= L and long_factor for T > L: a sequence has one
/// of two sets of frequencies. T is the true length of the sequence.
/// cos and sin are multiplied by short_mscale or long_mscale (of T's list) if set; else by
/// attention_factor if set; else by sqrt(1 + ln s / ln L), and by 1 for s <= 1, whatever T is.
/// Source: LongRoPE (2402.13753); Hugging Face rope_type "longrope" (older: "su"), where s left out
/// is max_position_embeddings / L; the mscales: Phi-3.5-MoE, modeling_phimoe.py.
struct LongRope {
  double rope_theta = 10000;                                       ///< b
  std::vector<double> short_factor = {};                           ///< (d / 2), above 0
  std::vector<double> long_factor = {};                            ///< (d / 2), above 0
  std::optional<double> factor = std::nullopt;                     ///< s, extended / trained length
  std::int64_t original_max_position_embeddings = 0;               ///< L, tokens; has no default
  std::optional<double> attention_factor_override = std::nullopt;  ///< key attention_factor
  std::optional<double> short_mscale = std::nullopt;
  std::optional<double> long_mscale = std::nullopt;

  static constexpr std::string_view name = "longrope";
  friend bool operator==(const LongRope&, const LongRope&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    const auto above_zero = [](std::string_view key, Fallback fallback) {
      return Field{.key = key, .fallback = fallback, .lower = 0, .lower_open = true};
    };
    visit(rope_theta_field, self.rope_theta);
    visit(above_zero("short_factor", Fallback::none), self.short_factor);
    visit(above_zero("long_factor", Fallback::none), self.long_factor);
    visit(Field{.key = "factor", .lower = 1}, self.factor);
    visit(original_length_field, self.original_max_position_embeddings);
    visit(above_zero("attention_factor", Fallback::constant), self.attention_factor_override);
    visit(above_zero("short_mscale", Fallback::constant), self.short_mscale);
    visit(above_zero("long_mscale", Fallback::constant), self.long_mscale);
  }
  void check(RotaryShape shape) const {
    check_fields(*this);
    check_list("short_factor", short_factor, shape);
    check_list("long_factor", long_factor, shape);
    if (short_factor.size() != long_factor.size()) {
      fail_field(name, "long_factor", std::to_string(long_factor.size()) + " numbers",
                 std::to_string(short_factor.size()) + ", the same length as short_factor");
    }
    const bool both_scales = short_mscale && long_mscale;
    if (attention_factor_override && both_scales) {
      fail_field(name, "attention_factor", number_text(*attention_factor_override),
                 "null: short_mscale and long_mscale take its place", "Remove it, or those two");
    }
    if (attention_factor_override || both_scales) return;
    if (!factor) {
      fail_field(name, "factor", "no value", "extended length / trained length, at least 1",
                 "Give factor, or attention_factor, or short_mscale and long_mscale");
    }
    if (original_max_position_embeddings < 2) {
      fail_field(name, original_length_field.key, std::to_string(original_max_position_embeddings),
                 "at least 2: the attention factor divides by its logarithm",
                 "Give attention_factor");
    }
  }
  bool is_long(std::int64_t seq_len) const { return seq_len > original_max_position_embeddings; }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    const std::vector<double>& divisors = is_long(shape.seq_len) ? long_factor : short_factor;
    index_t pair = 0;
    for (double& w : inv_freq) {
      w = plain_frequency(rope_theta, pair, shape.rotary_dim) /
          divisors[static_cast<std::size_t>(pair)];
      ++pair;
    }
  }
  double attention_factor(RotaryShape shape) const {
    const std::optional<double>& mscale = is_long(shape.seq_len) ? long_mscale : short_mscale;
    if (mscale) return *mscale;
    if (attention_factor_override) return *attention_factor_override;
    const double s = factor.value_or(1);
    if (s <= 1) return 1;
    const auto length = static_cast<double>(original_max_position_embeddings);
    return __builtin_sqrt(1 + elementary::log(s) / elementary::log(length));
  }
  std::int64_t length_key(std::int64_t seq_len) const { return is_long(seq_len) ? 1 : 0; }

 private:
  void check_list(std::string_view key, const std::vector<double>& list, RotaryShape shape) const {
    const auto pairs = static_cast<std::size_t>(shape.rotary_dim / 2);
    if (list.empty() || (pairs != 0 && list.size() != pairs)) {
      fail_field(name, key, std::to_string(list.size()) + " numbers",
                 pairs == 0 ? "a number for each pair of rotated channels"
                            : std::to_string(pairs) + " numbers, one for each pair of the " +
                                  std::to_string(shape.rotary_dim) + " rotated channels");
    }
  }
};
static_assert(FrequencyPolicy<LongRope>);

}  // namespace ropewalk::inline ROPEWALK_ABI
