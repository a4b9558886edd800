// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A Llama of one head whose weights are written by hand, and a text it was made for. Small enough
/// to be understood entirely, it has the strengths and the weakness of a trained model.
///
/// In the text nine of ten tokens repeat the one eight places before. The head looks seven tokens
/// back from where it stands and predicts what it sees there. It finds the place by its fast pairs,
/// and its slow pair, which made less than a turn in the "trained" 128 tokens, keeps it from
/// looking far away. Beyond 128 tokens the slow pair comes round again.

#include <vector>

#include <ropewalk/core/rng.hpp>
#include <ropewalk/model/llama.hpp>
#include <ropewalk/rope/adjusted_base.hpp>

namespace copy_head {

namespace rw = ropewalk;

inline constexpr rw::index_t vocabulary = 16;
inline constexpr rw::index_t look_back = 7;

/// What it was "trained" with.
inline constexpr rw::AdjustedBase rope{.rope_theta = 10000};

inline rw::Llama<float> make_model() {
  const rw::LlamaConfig config{.hidden_size = 48,
                               .intermediate_size = 16,
                               .num_hidden_layers = 1,
                               .num_attention_heads = 1,
                               .num_key_value_heads = 1,
                               .head_dim = 16,
                               .vocab_size = vocabulary,
                               .max_position_embeddings = 128};
  // Channels 0..15: the token that is here. 16..31: what the head brings. 32: always 1.
  constexpr rw::index_t brought = 16, one = 32;
  auto weights = rw::make_llama_weights<float>(config);  // zeros
  rw::LlamaLayer<float>& layer = weights.layers[0];
  for (rw::index_t c = 0; c < config.hidden_size; ++c) {
    layer.input_layernorm[c] = 0.2f;  // undoes the norm's scale: two of 48 channels are 1
    weights.norm[c] = 0.25f;          // and here three
  }
  for (rw::index_t token = 0; token < vocabulary; ++token) {
    weights.embed_tokens(token, token) = weights.embed_tokens(token, one) = 1;
    layer.v_proj(token, token) = 1;            // tell which token you are
    layer.o_proj(brought + token, token) = 1;  // bring it here
    weights.lm_head(token, brought + token) = 7;
  }
  // Keys all alike, queries all alike: only rotation tells positions apart. A query that is turned
  // back by look_back positions meets the key of that place head on.
  const auto plan = rw::make_frequency_plan(rope, {.rotary_dim = config.head_dim});
  for (rw::index_t pair = 0; pair < 3; ++pair) {
    const double angle = plan.inv_freq[static_cast<std::size_t>(pair)] * look_back;
    const auto turn = rw::elementary::sincos(angle);
    layer.q_proj(pair, one) = static_cast<float>(8 * turn.cos);
    layer.q_proj(pair + 8, one) = static_cast<float>(-8 * turn.sin);
    layer.k_proj(pair, one) = 1;
  }
  layer.q_proj(3, one) = 32;  // pair 3, 199 tokens a turn: stay near
  layer.k_proj(3, one) = 1;
  return rw::make_llama(config, std::move(weights));
}

/// `count` tokens of the text; another seed gives another text.
inline std::vector<rw::TokenId> make_text(rw::index_t count, std::uint64_t seed) {
  const rw::Random choice{.seed = seed, .stream = 0}, fresh{.seed = seed, .stream = 1};
  std::vector<rw::TokenId> ids(static_cast<std::size_t>(count));
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const bool repeat = t > look_back && choice.uniform(t) < 0.9;
    ids[t] = repeat ? ids[t - look_back - 1] : static_cast<rw::TokenId>(fresh.bits(t) % vocabulary);
  }
  return ids;
}

}  // namespace copy_head
