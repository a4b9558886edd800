// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The models and batches of make_torch_training.py: the same numbers from core/rng.hpp.

#include <cstdint>
#include <string_view>
#include <vector>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/model/weights.hpp"

namespace ropewalk::golden {

inline constexpr double torch_training_theta = 100;
inline constexpr index_t torch_training_tokens = 64;

/// \param name  of a case: plain, weighted, documents (tied), norm_head
inline LlamaConfig torch_training_config(std::string_view name) {
  return {.hidden_size = 32,
          .intermediate_size = 48,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 8,
          .vocab_size = 64,
          .max_position_embeddings = torch_training_tokens,
          .rms_norm_eps = 1e-5,
          .tie_word_embeddings = name == "documents",
          .norm_head = name == "norm_head",
          .pair_layout = PairLayout::half_split};
}

/// Matrices uniform in [-1/4, 1/4), norms in [3/4, 5/4), rounded to float once.
inline LlamaWeights<float> torch_training_weights(const LlamaConfig& config) {
  LlamaWeights<float> weights = make_llama_weights<float>(config);
  Random random{.seed = 2026, .stream = 0, .step = 0};
  const auto number = [&](index_t element) {
    return 0.25 * (2 * random.uniform(static_cast<std::uint64_t>(element)) - 1);
  };
  for_each_parameter(config, weights, [&](const std::string&, auto& storage) {
    if constexpr (requires { storage.outputs(); }) {
      for (index_t r = 0; r < storage.outputs(); ++r) {
        for (index_t c = 0; c < storage.inputs(); ++c) {
          storage(r, c) = static_cast<float>(number(r * storage.inputs() + c));
        }
      }
    } else {
      for (index_t i = 0; i < storage.size(); ++i) storage[i] = static_cast<float>(1 + number(i));
    }
    ++random.stream;
  });
  return weights;
}

/// Documents packed into one batch, each causal by itself, with positions from 0.
struct TorchTrainingBatch {
  std::vector<TokenId> tokens, targets;  // -1 where not scored
  std::vector<float> loss_weights;
  std::vector<std::int64_t> positions;
  std::vector<std::int32_t> cu_seqlens;
};

/// What step 0 .. 9 of a case is trained on. An id follows from the one before, but for every
/// eighth or so.
inline TorchTrainingBatch torch_training_batch(std::string_view name, std::uint32_t step) {
  TorchTrainingBatch b;
  const Random random{.seed = 2026, .stream = 1000, .step = step};
  b.tokens.push_back(static_cast<TokenId>(random.bits(0) % 64));
  for (std::uint64_t t = 1; t <= torch_training_tokens; ++t) {
    const std::uint64_t bits = random.bits(t);
    const auto drawn = static_cast<TokenId>((bits >> 8) % 64);
    b.tokens.push_back(bits % 8 == 0 ? drawn : (5 * b.tokens.back() + 3) % 64);
  }
  b.targets.assign(b.tokens.begin() + 1, b.tokens.end());
  b.tokens.pop_back();
  for (index_t t = 0; t < torch_training_tokens; ++t) {
    const bool weighted = name == "weighted";
    b.loss_weights.push_back(weighted ? static_cast<float>(3 * (t % 5)) / 1024 : 1.0f / 64);
    if (weighted && t % 7 == 3) b.targets[static_cast<std::size_t>(t)] = -1;
  }
  b.cu_seqlens = {0, 32, 64};
  if (name == "weighted") b.cu_seqlens = {0, 64};
  if (name == "documents") b.cu_seqlens = {0, 7, 8, 40, 64};
  for (std::size_t d = 1; d < b.cu_seqlens.size(); ++d) {
    const std::int32_t begin = b.cu_seqlens[d - 1], end = b.cu_seqlens[d];
    for (std::int32_t t = begin; t < end; ++t) b.positions.push_back(t - begin);
    if (name == "documents") b.targets[static_cast<std::size_t>(end) - 1] = -1;
  }
  return b;
}

}  // namespace ropewalk::golden
