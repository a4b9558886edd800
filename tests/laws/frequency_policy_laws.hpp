// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What every frequency policy must keep, whatever its method.

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/frequency_plan.hpp"
#include "ropewalk/rope/rope_spec.hpp"

#include "support/error_of.hpp"

namespace ropewalk::laws {

template <FrequencyPolicy P>
std::vector<double> frequencies(const P& policy, RotaryShape shape) {
  std::vector<double> inv_freq(static_cast<std::size_t>(shape.rotary_dim / 2), -1);
  policy.fill(shape, inv_freq);
  return inv_freq;
}

/// Frequencies are finite, in [0, 1], fall strictly until they are 0, and are the same at every
/// call. (Lists of divisors may give others; the examples' do not.)
template <FrequencyPolicy P>
void check_frequencies(const P& policy, RotaryShape shape) {
  const std::vector<double> w = frequencies(policy, shape);
  for (std::size_t i = 0; i < w.size(); ++i) {
    CHECK(std::isfinite(w[i]));
    CHECK(w[i] >= 0);
    CHECK(w[i] <= 1);
    if (i > 0) CHECK((w[i] < w[i - 1] || (w[i] == 0 && w[i - 1] == 0)));
  }
  CHECK(w == frequencies(policy, shape));
  const double factor = policy.attention_factor(shape);
  CHECK(std::isfinite(factor));
  CHECK(factor > 0);
  CHECK(make_frequency_plan(policy, shape).rope_hash ==
        make_frequency_plan(P(policy), shape).rope_hash);
}

/// Lengths of equal key give equal frequencies, and a copy of the key is its own key.
template <FrequencyPolicy P>
void check_length_key(const P& policy, RotaryShape shape) {
  for (std::int64_t a = 0; a <= 40000; a += 500) {
    const std::int64_t key = policy.length_key(a);
    for (const std::int64_t b : {a / 2, a + 1, 2 * a}) {
      if (policy.length_key(b) != key) continue;
      CHECK(frequencies(policy, {shape.rotary_dim, a}) ==
            frequencies(policy, {shape.rotary_dim, b}));
    }
  }
}

/// rope_theta comes first, keys are unique and lower-case words.
template <FrequencyPolicy P>
void check_field_list(const P& policy) {
  std::vector<std::string> keys;
  P::fields(policy, [&keys](const Field& field, const auto&) { keys.emplace_back(field.key); });
  REQUIRE(!keys.empty());
  CHECK(keys.front() == "rope_theta");
  CHECK(std::set<std::string>(keys.begin(), keys.end()).size() == keys.size());
  for (const std::string& key : keys) {
    CHECK(key.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789") == std::string::npos);
  }
}

/// A copy whose number under `key` is `value`.
template <FrequencyPolicy P>
P with_value(P policy, std::string_view key, double value) {
  struct Setter {
    std::string_view key;
    double value;
    void operator()(const Field& f, double& v) const {
      if (f.key == key) v = value;
    }
    void operator()(const Field& f, std::optional<double>& v) const {
      if (f.key == key) v = value;
    }
    void operator()(const Field& f, std::int64_t& v) const {
      if (f.key == key) v = static_cast<std::int64_t>(value);
    }
    void operator()(const Field& f, std::vector<double>& v) const {
      if (f.key == key) v.back() = value;
    }
    void operator()(const Field&, bool&) const {}
  };
  P::fields(policy, Setter{key, value});
  return policy;
}

/// Values that break their field's rule are refused, by name; so are NaN and infinity.
template <FrequencyPolicy P>
void check_rules(const P& policy, RotaryShape shape) {
  CHECK_NOTHROW(policy.check(shape));
  CHECK_NOTHROW(policy.check({}));
  P::fields(policy, [&](const Field& field, const auto& member) {
    using T = std::remove_cvref_t<decltype(member)>;
    if constexpr (!std::is_same_v<T, bool>) {
      std::vector<double> bad;
      if constexpr (!std::is_same_v<T, std::int64_t>) {
        bad = {std::nan(""), std::numeric_limits<double>::infinity(),
               -std::numeric_limits<double>::infinity()};
      }
      if (std::isfinite(field.lower)) bad.push_back(field.lower - 1);
      if (field.lower_open) bad.push_back(field.lower);
      for (const double value : bad) {
        const P broken = with_value(policy, field.key, value);
        const ErrorInfo error = error_of([&] { broken.check(shape); });
        CHECK_MESSAGE(error.kind == ErrorClass::config, field.key, " = ", value);
        CHECK(error.field == field.key);
        CHECK(!error.expected.empty());
      }
    }
  });
}

/// A factor of 1 is plain RoPE, bit for bit (up to the trained length, for methods that know it;
/// but for pairs that stand still whatever the factor).
template <FrequencyPolicy P>
void check_factor_one(const P& policy, RotaryShape shape) {
  bool has_factor = false;
  P one = policy;
  P::fields(one, [&has_factor](const Field& field, auto& value) {
    using T = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_same_v<T, double>) {
      if (field.key == "factor") has_factor = true, value = 1;
    }
    if constexpr (std::is_same_v<T, std::optional<double>>) value.reset();
  });
  if (!has_factor) return;
  const RotaryShape trained = {.rotary_dim = shape.rotary_dim, .seq_len = 0};
  std::vector<double> plain =
      frequencies(AdjustedBase{.rope_theta = rope_theta_of(policy)}, trained);
  const std::vector<double> w = frequencies(policy, trained);
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (w[i] == 0) plain[i] = 0;
  }
  CHECK(frequencies(one, trained) == plain);
  CHECK(one.attention_factor(trained) == 1);
}

/// The text names every field and gives the policy back, whatever the model.
template <FrequencyPolicy P>
void check_text(const P& policy) {
  const std::string text = to_text(policy);
  for (const ModelRope& model : {ModelRope{}, ModelRope{777, 7777}}) {
    const AnyFrequency back = parse_rope(text, model);
    CHECK(back == AnyFrequency(policy));
    CHECK(to_text(back) == text);
    CHECK(config_hash(back) == config_hash(policy));
  }
  // Bits that no short decimal gives survive too.
  P::fields(policy, [&](const Field& field, const auto& member) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(member)>, double>) {
      const P odd = with_value(policy, field.key, std::nextafter(member, 1e300));
      CHECK(config_hash(odd) != config_hash(policy));
      if (outcome_of([&odd] { odd.check({}); }) == "accepted") {
        CHECK(parse_rope(to_text(odd), {}) == AnyFrequency(odd));
      }
    }
  });
}

template <FrequencyPolicy P>
void check_frequency_policy(const P& policy, RotaryShape shape) {
  INFO(to_text(policy), ", rotary_dim ", shape.rotary_dim, ", seq_len ", shape.seq_len);
  check_frequencies(policy, shape);
  check_length_key(policy, shape);
  check_field_list(policy);
  check_rules(policy, shape);
  check_factor_one(policy, shape);
  check_text(policy);
}

}  // namespace ropewalk::laws
