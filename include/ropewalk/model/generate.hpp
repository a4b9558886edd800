// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Greedy decoding with a KV cache.

#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/position_map.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Appends the most probable next token to `ids` until `max_tokens` are added or on_token(id)
/// returns false. All frequencies are those of one plan, fixed before the first token.
/// \param ids the prompt, not empty
/// \throws Error(usage) for an empty prompt, ids outside the vocabulary
template <class T, class OnToken>
void generate_greedy(const Llama<T>& model, const FrequencyPlan& frequencies,
                     const KernelTable<T>& kernels, const Executor& executor,
                     std::vector<TokenId>& ids, index_t max_tokens, OnToken&& on_token) {
  require(!ids.empty(), "a prompt of at least one token");
  require(max_tokens >= 0, "max_tokens >= 0");
  if (max_tokens == 0) return;
  KvCache cache = make_kv_cache(model.config, static_cast<index_t>(ids.size()) + max_tokens);
  Workspace workspace;
  std::vector<HeadResult> results;
  std::vector<TokenId> targets;
  for (index_t step = 0; step < max_tokens; ++step) {
    const std::span<const TokenId> fresh =
        std::span<const TokenId>(ids).subspan(static_cast<std::size_t>(cache.length));
    const auto n = static_cast<index_t>(fresh.size());
    const std::vector<std::int64_t> positions = batch_positions(Identity{cache.length}, n);
    targets.assign(fresh.size(), not_scored);
    targets.back() = predict_only;
    results.resize(fresh.size());
    const BlockPlan blocks = make_block_plan(Causal{}, n, {}, cache.length);
    const RotaryRows rows = make_rotary_rows(frequencies, positions);
    const RotationPair rotation{&rows, &rows};
    const LayerPlan layer{.branches = {&rotation, 1},
                          .blocks = &blocks,
                          .logit_scale = frequencies.logit_scale,
                          .rope_hash = frequencies.rope_hash};
    forward(model, std::span(&layer, 1),
            {.tokens = fresh, .targets = targets, .positions = positions}, &cache, kernels,
            executor, workspace, results);
    ids.push_back(results.back().argmax);
    if (!on_token(ids.back())) return;
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
