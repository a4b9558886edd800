// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// LengthFrequencies: the frequencies of a sequence as a function of its length.

#include <cstdint>
#include <functional>
#include <utility>

#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A policy and a shape, or one plan for every length, behind one type: what decoding needs to
/// know of a method while the sequence grows.
class LengthFrequencies {
 public:
  /// The frequencies of `policy`, those of length T for a sequence of T tokens.
  template <FrequencyPolicy P>
  LengthFrequencies(P policy, index_t rotary_dim)
      : key_([policy](std::int64_t length) { return policy.length_key(length); }),
        plan_([policy, rotary_dim](std::int64_t length) {
          return make_frequency_plan(policy, {.rotary_dim = rotary_dim, .seq_len = length});
        }) {}
  /// The same frequencies at every length.
  explicit LengthFrequencies(FrequencyPlan plan)
      : key_([](std::int64_t) { return std::int64_t{0}; }),
        plan_([plan = std::move(plan)](std::int64_t) { return plan; }) {}

  /// Equal keys mean equal frequencies.
  std::int64_t key(std::int64_t length) const { return key_(length); }
  /// \throws Error(config) when the policy does not fit the shape.
  FrequencyPlan plan(std::int64_t length) const { return plan_(length); }
  /// Whether any two lengths up to `longest` differ.
  bool vary_up_to(std::int64_t longest) const { return key_(1) != key_(longest); }

 private:
  std::function<std::int64_t(std::int64_t)> key_;
  std::function<FrequencyPlan(std::int64_t)> plan_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
