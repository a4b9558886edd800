// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// FrequencyPlan: a policy lowered to plain data, the only form in which kernels' inputs know it.

#include <cstdint>
#include <string>
#include <vector>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/hash.hpp"
#include "ropewalk/rope/concepts.hpp"
#include "ropewalk/rope/modifiers.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Log-n scaling of queries (query_scale.hpp).
struct LogN {
  std::int64_t length = 0;  ///< L, tokens; 0: none
  bool clip = true;         ///< never below 1

  friend bool operator==(const LogN&, const LogN&) = default;
};

/// Frequencies of one head, immutable once made.
struct FrequencyPlan {
  std::vector<double> inv_freq;      ///< (rotary_dim / 2), radians per token, >= 0
  std::vector<std::uint64_t> turns;  ///< (rotary_dim / 2), round(2^64 inv_freq / 2 pi)
  double rope_theta = 0;             ///< the policy's base; ggml's recurrence starts from it
  double attention_factor = 1;       ///< multiplies cos and sin
  double logit_scale = 1;            ///< multiplies all logits of the layer
  LogN logn = {};                    ///< multiplies logits by query position
  index_t first_channel = 0;         ///< channels [first_channel, + rotary_dim()) of a head rotate
  std::uint64_t rope_hash = 0;       ///< of all the above but rope_theta

  index_t num_pairs() const { return static_cast<index_t>(inv_freq.size()); }
  index_t rotary_dim() const { return 2 * num_pairs(); }
};

/// Makes turns and rope_hash agree with inv_freq and the factors; call it after changing those.
/// \throws Error(numeric) for a frequency or factor that is not finite, or a negative frequency.
inline void seal(FrequencyPlan& plan) {
  Hasher hash;
  plan.turns.resize(plan.inv_freq.size());
  for (std::size_t i = 0; i < plan.inv_freq.size(); ++i) {
    const double w = plan.inv_freq[i];
    if (!(w >= 0 && w < 0x1p40)) {
      fail({.kind = ErrorClass::numeric,
            .field = "inv_freq[" + std::to_string(i) + "]",
            .found = std::to_string(w),
            .expected = "a finite frequency of at least 0"});
    }
    plan.turns[i] = elementary::turns_per_token(w);
    hash.value(plan.turns[i]);
  }
  if (!elementary::is_finite(plan.attention_factor) || !elementary::is_finite(plan.logit_scale)) {
    fail({.kind = ErrorClass::numeric,
          .field = "attention_factor",
          .found = std::to_string(plan.attention_factor),
          .expected = "a finite factor"});
  }
  hash.value(plan.attention_factor).value(plan.logit_scale);
  if (plan.first_channel != 0) hash.text("first_channel").value(plan.first_channel);
  if (plan.logn.length != 0) hash.text("logn").value(plan.logn.length).value(plan.logn.clip);
  plan.rope_hash = hash.digest();
}

/// Lowers a policy with modifiers. shape.rotary_dim: the head's channels, of which the modifiers
/// may rotate a part. \throws Error(config) when policy or modifiers do not fit the shape.
template <FrequencyPolicy P>
FrequencyPlan make_frequency_plan(const P& policy, RotaryShape shape,
                                  const RopeModifiers& modifiers) {
  require(shape.rotary_dim >= 2 && shape.rotary_dim % 2 == 0, "an even rotary_dim of at least 2");
  require(shape.seq_len >= 0, "seq_len >= 0");
  const RotatedPart part = rotated_part(modifiers, shape.rotary_dim);
  shape.rotary_dim = part.rotary_dim;
  policy.check(shape);
  FrequencyPlan plan;
  plan.inv_freq.resize(static_cast<std::size_t>(shape.rotary_dim / 2));
  policy.fill(shape, plan.inv_freq);
  plan.attention_factor = policy.attention_factor(shape);
  plan.rope_theta = rope_theta_of(policy);
  plan.first_channel = part.first_channel;
  plan.logit_scale = modifiers.logit_scale.value_or(1);
  plan.logn = {.length = modifiers.logn_length.value_or(0),
               .clip = modifiers.logn_clip.value_or(true)};
  seal(plan);
  return plan;
}

/// Lowers a policy, with its own modifiers if it is an AnyFrequency.
/// \throws Error(config) when it does not fit the shape.
template <FrequencyPolicy P>
FrequencyPlan make_frequency_plan(const P& policy, RotaryShape shape) {
  return make_frequency_plan(policy, shape, modifiers_of(policy));
}

}  // namespace ropewalk::inline ROPEWALK_ABI
