// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The small random Llama of make_tiny_llama.py: the same weights and tokens from the same hash.

#include <cstdint>
#include <type_traits>
#include <vector>

#include "ropewalk/model/weights.hpp"

namespace ropewalk::golden {

inline constexpr std::int64_t tiny_llama_trained_length = 64;
inline constexpr double tiny_llama_yarn_factor = 4;

inline LlamaConfig tiny_llama_config(bool norm_head) {
  return {.hidden_size = 48,
          .intermediate_size = 80,
          .num_hidden_layers = 2,
          .num_attention_heads = 6,
          .num_key_value_heads = 2,
          .head_dim = 8,
          .vocab_size = 70,
          .max_position_embeddings = tiny_llama_trained_length,
          .rms_norm_eps = 1e-5,
          .tie_word_embeddings = false,
          .norm_head = norm_head,
          .pair_layout = PairLayout::half_split};
}

/// 16 bits for each element of a tensor.
constexpr std::uint32_t hash16(std::uint32_t tensor, std::uint32_t element) {
  std::uint32_t x = element * 2654435761u + tensor * 40503u + 1u;
  x ^= x >> 15;
  x *= 2246822519u;
  x ^= x >> 13;
  return x & 0xffffu;
}

/// Matrices uniform in [-1/2, 1/2), norms in [3/4, 5/4); all exact in float.
inline LlamaWeights<float> tiny_llama_weights(const LlamaConfig& config) {
  LlamaWeights<float> weights = make_llama_weights<float>(config);
  std::uint32_t tensor = 0;
  const auto uniform = [&tensor](index_t element) {
    return static_cast<float>(hash16(tensor, static_cast<std::uint32_t>(element))) / 65536.0f -
           0.5f;
  };
  for_each_parameter(config, weights, [&](const std::string&, auto& storage) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(storage)>, Buffer<float>>) {
      for (index_t i = 0; i < storage.size(); ++i) storage[i] = 1 + uniform(i) / 2;
    } else {
      for (index_t r = 0; r < storage.outputs(); ++r) {
        for (index_t c = 0; c < storage.inputs(); ++c) {
          storage(r, c) = uniform(r * storage.inputs() + c);
        }
      }
    }
    ++tensor;
  });
  return weights;
}

/// 129 ids: 128 inputs, each with the next as its target.
inline std::vector<TokenId> tiny_llama_tokens() {
  std::vector<TokenId> ids;
  for (std::uint32_t i = 0; i < 129; ++i) {
    ids.push_back(static_cast<TokenId>(hash16(1000, i) % 70));
  }
  return ids;
}

}  // namespace ropewalk::golden
