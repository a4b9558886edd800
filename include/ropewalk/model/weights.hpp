// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Weights of a Llama, and the one visitor through which they are made, loaded, saved and counted.

#include <string>
#include <vector>

#include "ropewalk/linalg/packed_matrix.hpp"
#include "ropewalk/model/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Shapes in the comments are logical: (outputs, inputs), as Hugging Face stores them. Matrices are
/// stored as T, vectors as floats.
template <class T>
struct LlamaLayer {
  Buffer<float> input_layernorm;           // (C)
  PackedMatrix<T> q_proj;                  // (H * D, C)
  PackedMatrix<T> k_proj;                  // (K * D, C)
  PackedMatrix<T> v_proj;                  // (K * D, C)
  PackedMatrix<T> o_proj;                  // (C, H * D)
  Buffer<float> post_attention_layernorm;  // (C)
  PackedMatrix<T> gate_proj;               // (F, C)
  PackedMatrix<T> up_proj;                 // (F, C)
  PackedMatrix<T> down_proj;               // (C, F)
};

template <class T>
struct LlamaWeights {
  PackedMatrix<T> embed_tokens;  // (V, C)
  std::vector<LlamaLayer<T>> layers;
  Buffer<float> norm;       // (C)
  PackedMatrix<T> lm_head;  // (V, C); empty when tied to embed_tokens without norm_head

  const PackedMatrix<T>& head() const { return lm_head.empty() ? embed_tokens : lm_head; }
};

/// Calls visit(name, storage) for every stored parameter, with Hugging Face's tensor names. storage
/// is a Buffer<float>& (vectors) or PackedMatrix<T>& (matrices); its logical shape is its own.
/// `weights` may be const; layers must exist already (see make_llama_weights). A tied lm_head is
/// not visited: its parameters are embed_tokens.
template <class Weights, class Visitor>
void for_each_parameter(const LlamaConfig& config, Weights& weights, Visitor&& visit) {
  visit(std::string("model.embed_tokens.weight"), weights.embed_tokens);
  for (std::size_t l = 0; l < weights.layers.size(); ++l) {
    auto& layer = weights.layers[l];
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    visit(prefix + "input_layernorm.weight", layer.input_layernorm);
    visit(prefix + "self_attn.q_proj.weight", layer.q_proj);
    visit(prefix + "self_attn.k_proj.weight", layer.k_proj);
    visit(prefix + "self_attn.v_proj.weight", layer.v_proj);
    visit(prefix + "self_attn.o_proj.weight", layer.o_proj);
    visit(prefix + "post_attention_layernorm.weight", layer.post_attention_layernorm);
    visit(prefix + "mlp.gate_proj.weight", layer.gate_proj);
    visit(prefix + "mlp.up_proj.weight", layer.up_proj);
    visit(prefix + "mlp.down_proj.weight", layer.down_proj);
  }
  visit(std::string("model.norm.weight"), weights.norm);
  if (!config.tie_word_embeddings) visit(std::string("lm_head.weight"), weights.lm_head);
}

/// All-zero weights of a checked config.
template <class T>
LlamaWeights<T> make_llama_weights(const LlamaConfig& c) {
  LlamaWeights<T> w;
  w.embed_tokens = PackedMatrix<T>(c.vocab_size, c.hidden_size);
  for (index_t l = 0; l < c.num_hidden_layers; ++l) {
    w.layers.push_back({.input_layernorm = Buffer<float>(c.hidden_size),
                        .q_proj = {c.query_size(), c.hidden_size},
                        .k_proj = {c.key_value_size(), c.hidden_size},
                        .v_proj = {c.key_value_size(), c.hidden_size},
                        .o_proj = {c.hidden_size, c.query_size()},
                        .post_attention_layernorm = Buffer<float>(c.hidden_size),
                        .gate_proj = {c.intermediate_size, c.hidden_size},
                        .up_proj = {c.intermediate_size, c.hidden_size},
                        .down_proj = {c.hidden_size, c.intermediate_size}});
  }
  w.norm = Buffer<float>(c.hidden_size);
  if (!c.tie_word_embeddings) w.lm_head = PackedMatrix<T>(c.vocab_size, c.hidden_size);
  return w;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
