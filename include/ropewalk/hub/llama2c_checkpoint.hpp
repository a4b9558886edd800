// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Loads a llama2.c checkpoint as a model.

#include <string>

#include "ropewalk/hub/checkpoint_data.hpp"
#include "ropewalk/hub/fill_weights.hpp"
#include "ropewalk/io/llama2c.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The file says nothing of theta, epsilon and pairing: llama2.c fixes them (run.c and model.py).
inline LlamaConfig llama2c_config(const Llama2cHeader& h) {
  LlamaConfig c;
  c.hidden_size = h.dim;
  c.intermediate_size = h.hidden_dim;
  c.num_hidden_layers = h.n_layers;
  c.num_attention_heads = h.n_heads;
  c.num_key_value_heads = h.n_kv_heads;
  c.head_dim = h.head_dim();
  c.vocab_size = h.vocab_size;
  c.max_position_embeddings = h.seq_len;
  c.rms_norm_eps = 1e-5;
  c.tie_word_embeddings = h.shared_classifier;
  c.pair_layout = PairLayout::interleaved;
  return c;
}

inline constexpr double llama2c_rope_theta = 10000;

/// Loads weights from a source, matrices rounded to T. \throws as read_llama2c_layout;
/// Error(numeric) for NaN or infinity.
template <class T = float, ByteSource S>
CheckpointOf<T> load_llama2c(const S& source) {
  const Llama2cLayout layout = read_llama2c_layout(source);
  CheckpointOf<T> out;
  out.path = source.name();
  out.dtype = "f32";
  out.config = llama2c_config(layout.header);
  out.config.check(source.name());
  out.rope = AdjustedBase{.rope_theta = llama2c_rope_theta};
  out.weights = make_llama_weights<T>(out.config);

  Hasher hash;
  const auto fill = [&](const std::string& name, auto& to, std::uint64_t offset) {
    fill_parameter(
        source.name(), name, to,
        [&](std::int64_t first, std::span<float> values) {
          source.read(offset + 4 * static_cast<std::uint64_t>(first),
                      std::as_writable_bytes(values));
        },
        hash);
  };
  // Tensors of one kind lie side by side for all layers, so their order is not that of the visitor:
  // each parameter takes the next piece of its kind.
  std::uint64_t rms_att = layout.rms_att, rms_ffn = layout.rms_ffn;
  std::uint64_t wq = layout.wq, wk = layout.wk, wv = layout.wv, wo = layout.wo;
  std::uint64_t w1 = layout.w1, w2 = layout.w2, w3 = layout.w3;
  const auto next = [](std::uint64_t& cursor, std::int64_t elements) {
    const std::uint64_t at = cursor;
    cursor += 4 * static_cast<std::uint64_t>(elements);
    return at;
  };
  const auto offset_of = [&](const std::string& name, std::int64_t elements) {
    if (name == "model.embed_tokens.weight") return layout.token_embedding;
    if (name == "model.norm.weight") return layout.rms_final;
    if (name == "lm_head.weight") return layout.wcls;
    if (name.ends_with("input_layernorm.weight")) return next(rms_att, elements);
    if (name.ends_with("q_proj.weight")) return next(wq, elements);
    if (name.ends_with("k_proj.weight")) return next(wk, elements);
    if (name.ends_with("v_proj.weight")) return next(wv, elements);
    if (name.ends_with("o_proj.weight")) return next(wo, elements);
    if (name.ends_with("post_attention_layernorm.weight")) return next(rms_ffn, elements);
    if (name.ends_with("gate_proj.weight")) return next(w1, elements);
    if (name.ends_with("down_proj.weight")) return next(w2, elements);
    if (name.ends_with("up_proj.weight")) return next(w3, elements);
    fail({.kind = ErrorClass::internal, .field = name, .expected = "a tensor of llama2.c"});
  };
  for_each_parameter(out.config, out.weights, [&]<class P>(const std::string& name, P& to) {
    if constexpr (std::is_same_v<P, Buffer<float>>) {
      fill(name, to, offset_of(name, to.size()));
    } else {
      fill(name, to, offset_of(name, to.outputs() * to.inputs()));
    }
  });
  out.weights_hash = hash.digest();
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
