// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What frequency policies share: the plain frequency, common fields, and the checks of fields.

#include <string>
#include <string_view>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/number_text.hpp"
#include "ropewalk/rope/concepts.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// b^(-2i/d) in radians per token. **Error:** below 0.501 ulp. Source: RoFormer
/// (2104.09864), 3.2.2.
inline double plain_frequency(double rope_theta, index_t pair, index_t rotary_dim) {
  return elementary::pow(rope_theta, -2 * static_cast<double>(pair),
                         static_cast<double>(rotary_dim));
}

inline constexpr Field rope_theta_field = {
    .key = "rope_theta", .fallback = Fallback::model_theta, .lower = 1, .lower_open = true};
/// Factors below 1 would turn faster than in training: no method here is defined for them.
inline constexpr Field factor_field = {.key = "factor", .fallback = Fallback::none, .lower = 1};
inline constexpr Field original_length_field = {
    .key = "original_max_position_embeddings", .fallback = Fallback::model_length, .lower = 1};

/// The rule of a field in words: "a finite number of at least 1".
inline std::string rule_text(const Field& field) {
  std::string rule = "a finite number";
  if (elementary::is_finite(field.lower)) {
    rule += field.lower_open ? " above " : " of at least ";
    rule += number_text(field.lower);
  }
  return rule;
}

/// \throws Error(config) for a field of a policy.
[[noreturn]] inline void fail_field(std::string_view method, std::string_view key,
                                    std::string found, std::string expected, std::string fix = {}) {
  fail({.kind = ErrorClass::config,
        .where = "rope method " + std::string(method),
        .field = std::string(key),
        .found = std::move(found),
        .expected = std::move(expected),
        .fix = std::move(fix)});
}

/// Checks each number against the rule of its field. Call it first in a policy's check().
template <class P>
void check_fields(const P& policy) {
  struct Check {
    void operator()(const Field& field, double value) const {
      if (!elementary::is_finite(value) || value < field.lower ||
          (field.lower_open && value == field.lower)) {
        fail_field(P::name, field.key, number_text(value), rule_text(field));
      }
    }
    void operator()(const Field& field, std::int64_t value) const {
      (*this)(field, static_cast<double>(value));
    }
    void operator()(const Field&, bool) const {}
    void operator()(const Field& field, const std::optional<double>& value) const {
      if (value) (*this)(field, *value);
    }
    void operator()(const Field& field, const std::vector<double>& values) const {
      for (const double value : values) (*this)(field, value);
    }
  };
  P::fields(policy, Check{});
}

/// d / (d - 2) appears in all NTK-aware methods. \throws Error(config) for rotary_dim 2.
inline void check_ntk_shape(std::string_view method, RotaryShape shape) {
  if (shape.rotary_dim != 0 && shape.rotary_dim <= 2) {
    fail_field(method, "rotary_dim", std::to_string(shape.rotary_dim),
               "more than 2: the exponent d / (d - 2) divides by zero",
               "Use linear, or a head with more rotated channels");
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
