// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a forward pass is given besides the model: tokens, what layers do with positions, and which
/// logits are wanted.

#include <cstdint>
#include <span>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/core/tensor_view.hpp"
#include "ropewalk/rope/rotary_rows.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Values of a target that is no token.
inline constexpr TokenId not_scored = -1;    ///< the row is skipped
inline constexpr TokenId predict_only = -2;  ///< the row gets an argmax and nll = NaN

/// Tokens of one pass: one sequence, or several documents packed side by side.
struct TokenBatch {
  std::span<const TokenId> tokens;                ///< (tokens)
  std::span<const TokenId> targets = {};          ///< (tokens) next ids, not_scored or predict_only
  std::span<const float> loss_weights = {};       ///< (tokens) or none; used by training
  std::span<const std::int64_t> positions = {};   ///< (tokens); what RotaryRows were made from
  std::span<const std::int32_t> cu_seqlens = {};  ///< document offsets, or none
};

/// Rotations of one branch: rows of queries and of keys may differ (position remapping).
/// With a cache of unrotated keys, `keys` has a row for every key, cached ones first.
struct RotationPair {
  const RotaryRows* queries = nullptr;  ///< null: no rotation (a NoPE layer)
  const RotaryRows* keys = nullptr;
};

/// What a layer does with positions. Layers may differ (sliding windows, NoPE layers): it is data.
/// make_layer_plan (layer_plan.hpp) makes one from frequency plans.
struct LayerPlan {
  std::span<const RotationPair> branches;  ///< as many as the block plan's ranges refer to
  const BlockPlan* blocks = nullptr;
  double logit_scale = 1;
  std::span<const float> query_scale = {};  ///< (tokens) of each query, or none: make_query_scale
  std::uint64_t rope_hash = 0;              ///< of the frequencies; a KV cache must not mix them
};

/// Logits that a pass writes besides its results: for sampling, not for scoring.
struct LogitsRequest {
  std::span<const index_t> tokens = {};  ///< rows of the batch
  /// (tokens.size(), V), natural units: a float32 score in units of ln 2, times ln 2 in double.
  /// Distinct scores stay distinct, so the argmax is that of HeadResult.
  TensorView<double, 2> logits = {};
};

}  // namespace ropewalk::inline ROPEWALK_ABI
