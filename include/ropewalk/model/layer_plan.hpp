// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Frequency plans and positions lowered to the LayerPlan of a pass: the only place where a model's
/// rotations, query scales and logit scale are put together.

#include <cstdint>
#include <span>
#include <vector>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/model/token_batch.hpp"
#include "ropewalk/rope/query_scale.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Whether one pass can hold tokens of both plans: rows of cos and sin are a plan's own, as are the
/// attention factor (in the rows) and log-n scales, but the rotated channels and the logit scale
/// are those of the pass.
inline bool can_share_pass(const FrequencyPlan& a, const FrequencyPlan& b) {
  return a.num_pairs() == b.num_pairs() && a.first_channel == b.first_channel &&
         a.logit_scale == b.logit_scale;
}

/// Tokens of a pass and how they are rotated; what a LayerPlan refers to. Made by append_tokens.
struct TokenRotations {
  std::vector<std::int64_t> positions = {};  ///< (tokens)
  RotaryRows rows = {};
  std::vector<float> query_scale = {};  ///< (tokens), or empty: all 1
  double logit_scale = 1;
  std::uint64_t rope_hash = 0;  ///< of the plan; of all their hashes where there are several
  RotationPair pair = {};       ///< set by make_layer_plan
};

/// Appends the next tokens of the batch, at `positions` and turned by `frequencies`. Bits of a
/// token's rotation do not depend on what else is in the batch.
/// \throws Error(usage) unless can_share_pass holds with the plans before
inline void append_tokens(TokenRotations& tokens, const FrequencyPlan& frequencies,
                          std::span<const std::int64_t> positions,
                          AnglePrecision precision = AnglePrecision::exact) {
  const std::size_t before = tokens.positions.size();
  require(before == 0 || tokens.logit_scale == frequencies.logit_scale,
          "plans of one logit_scale in a pass");
  append_rotary_rows(tokens.rows, frequencies, positions, precision);
  const std::vector<float> scale = make_query_scale(frequencies, positions);
  if (!scale.empty() || !tokens.query_scale.empty()) {
    // A factor of 1 changes no bit.
    tokens.query_scale.resize(before, 1.0f);
    tokens.query_scale.insert(tokens.query_scale.end(), scale.begin(), scale.end());
    tokens.query_scale.resize(before + positions.size(), 1.0f);
  }
  if (before == 0) {
    tokens.rope_hash = frequencies.rope_hash;
  } else if (tokens.rope_hash != frequencies.rope_hash) {
    tokens.rope_hash = Hasher().value(tokens.rope_hash).value(frequencies.rope_hash).digest();
  }
  tokens.logit_scale = frequencies.logit_scale;
  tokens.positions.insert(tokens.positions.end(), positions.begin(), positions.end());
}

/// One branch for all layers. Refers to its arguments, which must outlive it and stay as they are.
/// \param keys rows of the keys where they differ from the queries' (a cache of unrotated keys)
inline LayerPlan make_layer_plan(TokenRotations& tokens, const BlockPlan& blocks,
                                 const RotaryRows* keys = nullptr) {
  tokens.pair = {&tokens.rows, keys == nullptr ? &tokens.rows : keys};
  return {.branches = {&tokens.pair, 1},
          .blocks = &blocks,
          .logit_scale = tokens.logit_scale,
          .query_scale = tokens.query_scale,
          .rope_hash = tokens.rope_hash};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
