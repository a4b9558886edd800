// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Hugging Face's config.json of a Llama, read strictly: a wrong or unknown setting is an error.

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/hub/hf_rope.hpp"
#include "ropewalk/model/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What config.json says.
struct HfConfig {
  LlamaConfig config = {};
  AnyFrequency rope = {};
  std::vector<std::string> notes = {};
};

namespace detail {

/// Keys that are read, checked or known not to change what the model computes.
inline constexpr std::array hf_known_keys{
    // read
    std::string_view("architectures"), std::string_view("attention_bias"),
    std::string_view("bos_token_id"), std::string_view("dtype"), std::string_view("eos_token_id"),
    std::string_view("head_dim"), std::string_view("hidden_act"), std::string_view("hidden_size"),
    std::string_view("initializer_range"), std::string_view("intermediate_size"),
    std::string_view("layer_types"), std::string_view("max_position_embeddings"),
    std::string_view("mlp_bias"), std::string_view("model_type"), std::string_view("norm_head"),
    std::string_view("num_attention_heads"), std::string_view("num_hidden_layers"),
    std::string_view("num_key_value_heads"), std::string_view("original_max_position_embeddings"),
    std::string_view("partial_rotary_factor"), std::string_view("quantization_config"),
    std::string_view("rms_norm_eps"), std::string_view("rope_interleave"),
    std::string_view("rope_interleaved"), std::string_view("rope_parameters"),
    std::string_view("rope_pct"), std::string_view("rope_scaling"), std::string_view("rope_theta"),
    std::string_view("rotary_emb_base"), std::string_view("rotary_pct"),
    std::string_view("rotary_dim"), std::string_view("seq_length"),
    std::string_view("use_dynamic_ntk"), std::string_view("use_logn_attn"),
    std::string_view("sliding_window"), std::string_view("tie_word_embeddings"),
    std::string_view("torch_dtype"), std::string_view("vocab_size"),
    // of no consequence for a forward pass in float32
    std::string_view("_name_or_path"), std::string_view("attention_dropout"),
    std::string_view("chunk_size_feed_forward"), std::string_view("id2label"),
    std::string_view("is_decoder"), std::string_view("is_encoder_decoder"),
    std::string_view("label2id"), std::string_view("output_attentions"),
    std::string_view("output_hidden_states"), std::string_view("pad_token_id"),
    std::string_view("pretraining_tp"), std::string_view("return_dict"),
    std::string_view("tokenizer_class"), std::string_view("transformers_version"),
    std::string_view("unk_token_id"), std::string_view("use_cache")};

inline void check_hf_architecture(const JsonView& root) {
  const std::string fix = "Only Llama models (LlamaForCausalLM, IndexForCausalLM) are supported";
  const auto architectures = root.find("architectures");
  if (!architectures) {
    fail({.kind = ErrorClass::unsupported,
          .file = root.file(),
          .field = "architectures",
          .found = "none",
          .expected = "[\"LlamaForCausalLM\"]",
          .fix = fix});
  }
  const std::vector<JsonView> names = architectures->elements();
  if (names.size() != 1) {
    architectures->refuse("one architecture, not " + std::to_string(names.size()), fix,
                          ErrorClass::unsupported);
  }
  const std::string& name = names[0].as_string();
  if (name != "LlamaForCausalLM" && name != "IndexForCausalLM") {
    names[0].refuse("LlamaForCausalLM or IndexForCausalLM", fix, ErrorClass::unsupported);
  }
  if (const auto type = root.find("model_type")) {
    if (type->as_string() != "llama" && type->as_string() != "index") {
      type->refuse("llama or index", fix, ErrorClass::unsupported);
    }
  }
}

/// What would change the computation and is not implemented.
inline void check_hf_unsupported(const JsonView& root) {
  for (const char* key : {"attention_bias", "mlp_bias", "rope_interleave", "rope_interleaved"}) {
    const auto v = root.find(key);
    if (v && v->as_bool()) {
      v->refuse("false", std::string("Models with ") + key + " are not supported",
                ErrorClass::unsupported);
    }
  }
  if (const auto v = root.find("quantization_config")) {
    v->refuse("no quantization", "Use the model's unquantized checkpoint", ErrorClass::unsupported);
  }
  if (const auto v = root.find("hidden_act"); v && v->as_string() != "silu") {
    v->refuse("silu", "Other activations are not supported", ErrorClass::unsupported);
  }
  if (const auto v = root.find("sliding_window")) {
    if (v->as_integer() < 1) v->refuse("at least 1, or null");
    v->refuse("null", "Sliding windows of configurations are not supported",
              ErrorClass::unsupported);
  }
  if (const auto v = root.find("layer_types")) {
    for (const JsonView& type : v->elements()) {
      if (type.as_string() != "full_attention") {
        type.refuse("full_attention", "Other layer types are not supported",
                    ErrorClass::unsupported);
      }
    }
  }
}

inline void check_token_id(const JsonView& v, index_t vocab_size) {
  const std::int64_t id = v.as_integer();
  if (id < 0 || id >= vocab_size) {
    v.refuse("an id below vocab_size = " + std::to_string(vocab_size));
  }
}

/// Values that say nothing of the weights but are wrong in themselves.
inline void check_hf_side_values(const JsonView& root, index_t vocab_size) {
  for (const char* key : {"bos_token_id", "eos_token_id"}) {
    const auto v = root.find(key);
    if (!v) continue;
    if (v->value().if_array() != nullptr) {
      for (const JsonView& id : v->elements()) check_token_id(id, vocab_size);
    } else {
      check_token_id(*v, vocab_size);
    }
  }
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto v = root.find(key);
    if (!v) continue;
    const std::string& name = v->as_string();
    if (name != "float32" && name != "bfloat16" && name != "float16" && name != "float64") {
      v->refuse("float32, bfloat16, float16 or float64");
    }
  }
  if (const auto v = root.find("initializer_range"); v && !(v->as_number() >= 0)) {
    v->refuse("a number of at least 0");
  }
}

/// A boolean, which Index-1.9B's file writes as 0 or 1.
inline bool flag(const JsonView& v) {
  if (v.value().if_number() != nullptr) {
    const std::int64_t n = v.as_integer();
    if (n != 0 && n != 1) v.refuse("true, false, 1 or 0");
    return n == 1;
  }
  return v.as_bool();
}

}  // namespace detail

/// Reads the configuration. Keys that are neither read nor known to be harmless, and defaults that
/// had to be taken, are told in `notes`.
/// \throws Error(config), Error(limit) or Error(unsupported) with file and JSON pointer.
/// Source: transformers, configuration_llama.py; for the rotary part see hf_rope.hpp.
inline HfConfig parse_hf_config(const JsonView& root) {
  HfConfig out;
  root.as_object();
  detail::check_hf_architecture(root);
  detail::check_hf_unsupported(root);
  const auto positive = [&root](const char* key) {
    const JsonView v = root.at(key);
    const std::int64_t n = v.as_integer();
    if (n < 1) v.refuse("an integer of at least 1");
    return n;
  };
  LlamaConfig& c = out.config;
  c.hidden_size = positive("hidden_size");
  c.intermediate_size = positive("intermediate_size");
  c.num_hidden_layers = positive("num_hidden_layers");
  c.num_attention_heads = positive("num_attention_heads");
  c.vocab_size = positive("vocab_size");
  c.max_position_embeddings = positive("max_position_embeddings");
  c.num_key_value_heads =
      root.find("num_key_value_heads") ? positive("num_key_value_heads") : c.num_attention_heads;
  if (root.find("head_dim")) {
    c.head_dim = positive("head_dim");
  } else {
    if (c.hidden_size % c.num_attention_heads != 0) {
      root.at("hidden_size")
          .refuse("a multiple of num_attention_heads = " + std::to_string(c.num_attention_heads),
                  "Give head_dim if it is not hidden_size / num_attention_heads");
    }
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  if (const auto eps = root.find("rms_norm_eps")) {
    c.rms_norm_eps = eps->as_number();
  } else {
    c.rms_norm_eps = 1e-6;
    out.notes.push_back("rms_norm_eps is not given: transformers' default 1e-6 taken");
  }
  if (const auto tie = root.find("tie_word_embeddings")) {
    c.tie_word_embeddings = tie->as_bool();
  } else {
    out.notes.push_back("tie_word_embeddings is not given: transformers' default false taken");
  }
  if (!root.find("hidden_act")) {
    out.notes.push_back("hidden_act is not given: transformers' default silu taken");
  }
  if (const auto norm = root.find("norm_head")) c.norm_head = detail::flag(*norm);
  c.pair_layout = PairLayout::half_split;
  c.check(root.file());
  detail::check_hf_side_values(root, c.vocab_size);

  out.rope = parse_hf_rope(root, c.head_dim, c.max_position_embeddings, out.notes);
  for (const std::string& key : root.as_object().keys) {
    const auto& known = detail::hf_known_keys;
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      out.notes.push_back("config key " + escaped(key) + " ignored");
    }
  }
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
