// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A small model whose widths fill no vector, and its losses.

#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/yarn.hpp"

#include "support/random.hpp"

namespace ropewalk {

constexpr LlamaConfig small_config{.hidden_size = 40,
                                   .intermediate_size = 52,
                                   .num_hidden_layers = 2,
                                   .num_attention_heads = 4,
                                   .num_key_value_heads = 2,
                                   .head_dim = 12,
                                   .vocab_size = 91,
                                   .max_position_embeddings = 64};

inline FrequencyPlan plan_of(index_t head_dim) {
  return make_frequency_plan(Yarn{.factor = 4, .original_max_position_embeddings = 64},
                             {.rotary_dim = head_dim});
}

/// Losses of a packed batch; one document unless cu_seqlens says otherwise.
template <class Arch = simd::native, class T = float, class Mask = Causal>
std::vector<double> losses(const Llama<T>& model, const std::vector<TokenId>& ids,
                           std::vector<std::int32_t> cu_seqlens = {}, const Executor& executor = {},
                           const Mask& mask = {}) {
  const std::size_t n = ids.size() - 1;
  if (cu_seqlens.empty()) cu_seqlens = {0, static_cast<std::int32_t>(n)};
  const FrequencyPlan frequencies = plan_of(model.config.head_dim);
  const auto positions = batch_positions(DocumentRestart{cu_seqlens});
  const RotaryRows rows = make_rotary_rows(frequencies, positions);
  const RotationPair rotation{&rows, &rows};
  const BlockPlan blocks = make_block_plan(mask, static_cast<index_t>(n), cu_seqlens);
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
  const auto kernels = make_kernel_table<Arch, T>();
  Workspace workspace;
  std::vector<HeadResult> results(n);
  forward(model, std::span(&layer, 1),
          {.tokens = std::span(ids).first(n), .targets = std::span(ids).subspan(1)}, nullptr,
          kernels, executor, workspace, results);
  std::vector<double> out;
  for (const HeadResult& r : results) out.push_back(r.nll);
  return out;
}

}  // namespace ropewalk
