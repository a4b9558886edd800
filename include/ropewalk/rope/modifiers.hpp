// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What goes with every frequency method: which channels of a head rotate, and how its logits are
/// scaled.

#include <optional>
#include <string>
#include <string_view>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/number_text.hpp"
#include "ropewalk/rope/policy_support.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Settings that combine with any method; unset ones change nothing. As keys of specs they belong
/// to every method, and what a spec leaves out comes from the model.
///
/// Partial rotation: of the head_dim channels of a head the r channels [o, o + r) rotate, with the
/// frequencies of a head of r channels; the others pass through. r is int(head_dim *
/// partial_rotary_factor) or rotary_dim, o is rotary_offset. (The other partial rotation, where the
/// slow pairs of the whole head stand still, is the method `proportional`.)
/// Source: transformers' partial_rotary_factor, GPT-NeoX's rotary_pct, GPT-J's rotary_dim; the
/// offset: DeepSeek-V2's heads, whose last channels rotate.
///
/// Logits: a query at position m is multiplied by logit_scale * max(1, ln(m + 1) / ln L), L being
/// logn_length; without the max if logn_clip is false. YaRN's temperature t is 1 / logit_scale.
/// Source of log-n: Su, kexue.fm 8823; Qwen-1's use_logn_attn with seq_length L.
struct RopeModifiers {
  std::optional<double> partial_rotary_factor = std::nullopt;  ///< in (0, 1]
  std::optional<std::int64_t> rotary_dim = std::nullopt;       ///< r, channels; even
  std::optional<std::int64_t> rotary_offset = std::nullopt;    ///< o, channels
  std::optional<double> logit_scale = std::nullopt;            ///< above 0
  std::optional<std::int64_t> logn_length = std::nullopt;      ///< L, tokens; 0: no log-n
  std::optional<bool> logn_clip = std::nullopt;                ///< unset: true

  friend bool operator==(const RopeModifiers&, const RopeModifiers&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(Field{.key = "partial_rotary_factor", .lower = 0, .lower_open = true},
          self.partial_rotary_factor);
    visit(Field{.key = "rotary_dim", .lower = 2}, self.rotary_dim);
    visit(Field{.key = "rotary_offset", .lower = 0}, self.rotary_offset);
    visit(Field{.key = "logit_scale", .lower = 0, .lower_open = true}, self.logit_scale);
    visit(Field{.key = "logn_length", .lower = 0}, self.logn_length);
    visit(Field{.key = "logn_clip"}, self.logn_clip);
  }
  bool states_part() const { return partial_rotary_factor || rotary_dim || rotary_offset; }
  bool states_logn() const { return logn_length || logn_clip; }
};

/// The channels of a head that rotate: [first_channel, first_channel + rotary_dim).
struct RotatedPart {
  index_t first_channel = 0;
  index_t rotary_dim = 0;
};

namespace detail {

[[noreturn]] inline void fail_modifier(std::string_view key, std::string found,
                                       std::string expected, std::string fix = {}) {
  fail({.kind = ErrorClass::config,
        .field = std::string(key),
        .found = std::move(found),
        .expected = std::move(expected),
        .fix = std::move(fix)});
}

}  // namespace detail

/// \throws Error(config) when the modifiers contradict each other or break their rules.
inline void check_modifiers(const RopeModifiers& m) {
  RopeModifiers::fields(m, [](const Field& field, const auto& value) {
    if (!value) return;
    const auto v = static_cast<double>(*value);
    if (!elementary::is_finite(v) || v < field.lower || (field.lower_open && v == field.lower)) {
      detail::fail_modifier(field.key, number_text(v), rule_text(field));
    }
  });
  if (m.partial_rotary_factor && *m.partial_rotary_factor > 1) {
    detail::fail_modifier("partial_rotary_factor", number_text(*m.partial_rotary_factor),
                          "a number in (0, 1]");
  }
  if (m.partial_rotary_factor && m.rotary_dim) {
    detail::fail_modifier("rotary_dim",
                          number_text(*m.rotary_dim) + " beside partial_rotary_factor = " +
                              number_text(*m.partial_rotary_factor),
                          "one of the two", "Remove one of the two");
  }
  if (m.rotary_offset.value_or(0) != 0 && !m.partial_rotary_factor && !m.rotary_dim) {
    detail::fail_modifier("rotary_offset", number_text(*m.rotary_offset),
                          "an offset of a part of the head",
                          "Give rotary_dim or partial_rotary_factor too");
  }
  if (m.logn_length && *m.logn_length == 1) {
    detail::fail_modifier("logn_length", "1", "0 (none), or at least 2: log-n divides by its log");
  }
  if (m.logn_clip && m.logn_length.value_or(0) == 0) {
    detail::fail_modifier("logn_clip", *m.logn_clip ? "true" : "false", "a log-n scale to clip",
                          "Give logn_length too");
  }
}

/// What of a head of head_dim channels rotates. \throws Error(config) for a part that is empty,
/// odd or does not fit.
inline RotatedPart rotated_part(const RopeModifiers& m, index_t head_dim) {
  check_modifiers(m);
  RotatedPart part = {.first_channel = m.rotary_offset.value_or(0), .rotary_dim = head_dim};
  std::string_view key = "rotary_dim";
  std::string found = std::to_string(head_dim);
  if (m.rotary_dim) {
    part.rotary_dim = *m.rotary_dim;
    found = std::to_string(*m.rotary_dim);
  } else if (m.partial_rotary_factor) {
    key = "partial_rotary_factor";
    part.rotary_dim =
        static_cast<index_t>(static_cast<double>(head_dim) * *m.partial_rotary_factor);
    found = number_text(*m.partial_rotary_factor) + ", of " + std::to_string(head_dim) +
            " channels " + std::to_string(part.rotary_dim);
  }
  if (part.rotary_dim < 2 || part.rotary_dim % 2 != 0) {
    // transformers would rotate r + 1 channels for an odd r; nobody trains such a model.
    detail::fail_modifier(key, found, "an even number of rotated channels, at least 2",
                          "Give rotary_dim");
  }
  if (part.rotary_dim > head_dim) {
    detail::fail_modifier(key, found, "at most head_dim = " + std::to_string(head_dim));
  }
  if (part.first_channel > head_dim - part.rotary_dim) {
    detail::fail_modifier("rotary_offset", std::to_string(part.first_channel),
                          "at most " + std::to_string(head_dim - part.rotary_dim) + ": " +
                              std::to_string(part.rotary_dim) + " of " + std::to_string(head_dim) +
                              " channels rotate");
  }
  return part;
}

/// The modifiers of a policy that has some, else none.
template <FrequencyPolicy P>
RopeModifiers modifiers_of(const P& policy) {
  if constexpr (requires { policy.modifiers(); }) {
    return policy.modifiers();
  } else {
    return {};
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
