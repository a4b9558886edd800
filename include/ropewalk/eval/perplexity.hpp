// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Losses of sequences side by side in one causal pass, each as if it were alone.

#include <span>
#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/model/layer_plan.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/position_map.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What runs a model: kernels, threads, memory. One evaluation at a time.
template <class T>
struct Runner {
  const Llama<T>* model = nullptr;
  const KernelTable<T>* kernels = nullptr;
  Executor executor = {};
  Workspace* workspace = nullptr;
  AnglePrecision precision = AnglePrecision::exact;
};

/// One pass over sequences packed side by side, sequence i being tokens [cu_seqlens[i],
/// cu_seqlens[i + 1]) under *frequencies[i]: results[t] for targets[t], with the bits that each
/// sequence has alone. Causal attention within a sequence, positions 0, 1, ... in each.
/// \throws Error(usage) for shapes or ids that do not fit, plans that no pass can share
/// (can_share_pass)
template <class T>
void score_batch(const Runner<T>& run, std::span<const FrequencyPlan* const> frequencies,
                 std::span<const std::int32_t> cu_seqlens, std::span<const TokenId> tokens,
                 std::span<const TokenId> targets, std::span<HeadResult> results) {
  require(cu_seqlens.size() == frequencies.size() + 1, "a frequency plan for each sequence");
  const BlockPlan blocks =
      make_block_plan(Causal{}, static_cast<index_t>(tokens.size()), cu_seqlens);
  TokenRotations rotations;
  std::vector<std::int64_t> positions;
  for (std::size_t i = 0; i < frequencies.size();) {
    // Neighbours under one plan share the rows of equal positions.
    const FrequencyPlan* const plan = frequencies[i];
    positions.clear();
    for (; i < frequencies.size() && frequencies[i] == plan; ++i) {
      for (std::int32_t t = cu_seqlens[i]; t < cu_seqlens[i + 1]; ++t) {
        positions.push_back(t - cu_seqlens[i]);
      }
    }
    append_tokens(rotations, *plan, positions, run.precision);
  }
  const LayerPlan layer = make_layer_plan(rotations, blocks);
  forward(*run.model, std::span(&layer, 1),
          {.tokens = tokens,
           .targets = targets,
           .positions = rotations.positions,
           .cu_seqlens = cu_seqlens},
          nullptr, *run.kernels, run.executor, *run.workspace, results);
}

/// The same under one frequency plan. Without cu_seqlens the tokens are one sequence.
template <class T>
void score_sequence(const Runner<T>& run, const FrequencyPlan& frequencies,
                    std::span<const TokenId> tokens, std::span<const TokenId> targets,
                    std::span<const std::int32_t> cu_seqlens, std::span<HeadResult> results) {
  const std::int32_t whole[2] = {0, checked_cast<std::int32_t>(tokens.size(), "tokens")};
  if (cu_seqlens.empty()) cu_seqlens = whole;
  const std::vector<const FrequencyPlan*> plans(cu_seqlens.size() - 1, &frequencies);
  score_batch(run, std::span<const FrequencyPlan* const>(plans), cu_seqlens, tokens, targets,
              results);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
