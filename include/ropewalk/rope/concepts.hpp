// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a frequency policy is: the fields it is configured by and the frequencies it gives.

#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What the frequencies of a head depend on besides the policy.
struct RotaryShape {
  index_t rotary_dim = 0;    ///< rotated channels of a head, d; even. Where modifiers rotate a
                             ///< part, make_frequency_plan takes the whole head here
  std::int64_t seq_len = 0;  ///< T: length of the sequence in tokens; static policies ignore it
};

/// Where a field's value comes from when a spec leaves it out.
enum class Fallback {
  none,          ///< the field is required
  model_theta,   ///< the model's rope_theta
  model_length,  ///< the model's trained length (max_position_embeddings)
  constant,      ///< the policy's own default
};

/// One configuration field: its Hugging Face key and its rule, lower <= value (or < if open) < inf.
struct Field {
  std::string_view key;
  Fallback fallback = Fallback::constant;
  double lower = -std::numeric_limits<double>::infinity();
  bool lower_open = false;
};

/// Accepts any field, for use in the concept below.
struct FieldVisitorArchetype {
  void operator()(const Field&, const double&) const {}
  void operator()(const Field&, const std::int64_t&) const {}
  void operator()(const Field&, const bool&) const {}
  void operator()(const Field&, const std::optional<double>&) const {}
  void operator()(const Field&, const std::vector<double>&) const {}
};

/// Gives the rotation frequencies of a method. A policy is a small copyable value; everything here
/// is pure. Laws: tests/laws/frequency_policy_laws.hpp.
///  - `name`: the method's name in specs, Hugging Face's rope_type where there is one.
///  - `fields(self, visit)`: calls visit(Field, self.member&) for every field, `rope_theta` first.
///    One list serves text form, config.json keys, validation and hash. Member types: double,
///    std::int64_t, bool, std::optional<double> (printed as `null` when unset),
///    std::vector<double> (`[1,2]`; the field's rule holds for every number).
///    `self` may be const.
///  - `check(shape)`: throws Error(config) when the fields do not fit together or the shape; a
///    rotary_dim of 0 means a shape not known yet, and leaves out what depends on it.
///  - `fill(shape, inv_freq)`: writes rotary_dim / 2 frequencies >= 0, radians per token.
///  - `attention_factor(shape)`: multiplies cos and sin, hence rotated logits by its square.
///  - `length_key(T)`: what of the sequence length T the frequencies depend on; equal keys mean
///    equal frequencies, so static policies return a constant.
template <class P>
concept FrequencyPolicy = std::is_copy_constructible_v<P> && std::is_copy_assignable_v<P> &&
    requires(P& m, const P& p, RotaryShape shape, std::int64_t seq_len, std::span<double> inv_freq,
             FieldVisitorArchetype visit) {
  { P::name } -> std::convertible_to<std::string_view>;
  { p == p } -> std::convertible_to<bool>;
  { P::fields(m, visit) } -> std::same_as<void>;
  { P::fields(p, visit) } -> std::same_as<void>;
  { p.check(shape) } -> std::same_as<void>;
  { p.fill(shape, inv_freq) } -> std::same_as<void>;
  { p.attention_factor(shape) } -> std::convertible_to<double>;
  { p.length_key(seq_len) } -> std::same_as<std::int64_t>;
};

/// The policy's base, read through its fields.
template <FrequencyPolicy P>
double rope_theta_of(const P& policy) {
  double theta = 0;
  P::fields(policy, [&theta](const Field& field, const auto& value) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, double>) {
      if (field.key == "rope_theta") theta = value;
    }
  });
  return theta;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
