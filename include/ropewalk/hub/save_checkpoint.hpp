// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Writes a model as a Hugging Face folder that transformers and load_checkpoint() open.

#include <string>
#include <vector>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/io/file_name.hpp"
#include "ropewalk/io/safetensors_write.hpp"
#include "ropewalk/model/weights.hpp"
#include "ropewalk/rope/rope_spec.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What a folder will hold.
struct SavedCheckpoint {
  const LlamaConfig& config;
  const AnyFrequency& rope;
  const LlamaWeights<float>& weights;
  std::string tokenizer_path = {};  ///< a file that is copied beside the weights, or none
};

namespace detail {

/// The rotary part of config.json: rope_theta, and rope_scaling for methods beyond a base.
/// NTK-aware scaling has no name of one meaning there: it is written as the base that it is.
inline std::string hf_rope_json(const AnyFrequency& rope, const LlamaConfig& config) {
  std::string method(method_name(rope));
  double theta = rope_theta_of(rope);
  const RopeModifiers modifiers = rope.modifiers();
  if (modifiers.logn_length || modifiers.logit_scale || modifiers.rotary_dim) {
    fail({.kind = ErrorClass::unsupported,
          .field = "rope",
          .found = to_text(rope),
          .expected = "a setting that config.json can say: no log-n, logit_scale or rotary_dim"});
  }
  std::string json;
  if (modifiers.partial_rotary_factor) {
    json += ",\n  \"partial_rotary_factor\": " + number_text(*modifiers.partial_rotary_factor);
  }
  std::string fields;
  double factor = 1;
  AnyFrequency::fields(rope, [&](const Field& field, const auto& value) {
    using T = std::remove_cvref_t<decltype(value)>;
    if (field.key == "rope_theta") return;
    std::string text;
    if constexpr (std::is_same_v<T, bool>) {
      text = value ? "true" : "false";
    } else if constexpr (std::is_same_v<T, std::optional<double>>) {
      if (!value) return;
      text = json_number(*value);
    } else if constexpr (std::is_same_v<T, std::vector<double>>) {
      for (const double x : value) text += (text.empty() ? "[" : ", ") + json_number(x);
      text = text.empty() ? "[]" : text + "]";
    } else {
      text = json_number(value);
      if (field.key == "factor") factor = static_cast<double>(value);
    }
    fields += ",\n    " + json_escape(field.key) + ": " + text;
  });
  if (method == "ntk") {
    const RotatedPart part = rotated_part(modifiers, config.head_dim);
    const auto d = static_cast<double>(part.rotary_dim);
    theta *= elementary::pow(factor, d / (d - 2));
    method = "default";
  }
  json += ",\n  \"rope_theta\": " + json_number(theta);
  if (method != "default") {
    json +=
        ",\n  \"rope_scaling\": {\n    \"rope_type\": " + json_escape(method) + fields + "\n  }";
  }
  return json;
}

inline std::string hf_config_json(const LlamaConfig& c, const AnyFrequency& rope) {
  require(c.pair_layout == PairLayout::half_split,
          "the half_split pair layout, the only one that Hugging Face's Llama has");
  std::string json =
      "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n"
      "  \"hidden_act\": \"silu\",\n  \"torch_dtype\": \"float32\",\n  \"attention_bias\": false";
  const auto add = [&](const char* key, const std::string& value) {
    json += ",\n  " + json_escape(key) + ": " + value;
  };
  add("hidden_size", json_number(c.hidden_size));
  add("intermediate_size", json_number(c.intermediate_size));
  add("num_hidden_layers", json_number(c.num_hidden_layers));
  add("num_attention_heads", json_number(c.num_attention_heads));
  add("num_key_value_heads", json_number(c.num_key_value_heads));
  add("head_dim", json_number(c.head_dim));
  add("vocab_size", json_number(c.vocab_size));
  add("max_position_embeddings", json_number(c.max_position_embeddings));
  add("rms_norm_eps", json_number(c.rms_norm_eps));
  add("tie_word_embeddings", c.tie_word_embeddings ? "true" : "false");
  if (c.norm_head) add("norm_head", "true");
  return json + hf_rope_json(rope, c) + "\n}\n";
}

}  // namespace detail

/// Writes config.json, model.safetensors (F32) and a copy of the tokenizer into an existing folder.
/// Each file is replaced atomically, the weights last but one, the configuration last: a folder
/// that never had one is no checkpoint before all is there. \throws Error(unsupported) for what
/// config.json cannot say; Error(io | resource)
inline void save_checkpoint(const SavedCheckpoint& saved, const std::string& folder) {
  const std::string json = detail::hf_config_json(saved.config, saved.rope);
  if (!saved.tokenizer_path.empty()) {
    const std::string name =
        saved.tokenizer_path.substr(saved.tokenizer_path.rfind('/') + 1);  // npos + 1 is 0
    const FileSource source(saved.tokenizer_path);
    write_file(join_path(folder, name), read_text(source, std::uint64_t{1} << 32));
  }
  std::vector<FloatTensorEntry> entries;
  for_each_parameter(saved.config, saved.weights, [&](const std::string& name, const auto& w) {
    if constexpr (requires { w.outputs(); }) {
      entries.push_back({name, {w.outputs(), w.inputs()}});
    } else {
      entries.push_back({name, {w.size()}});
    }
  });
  SafetensorsWriter writer(join_path(folder, "model.safetensors"), entries, {{"format", "pt"}});
  std::vector<float> row;
  for_each_parameter(saved.config, saved.weights, [&](const std::string&, const auto& w) {
    if constexpr (requires { w.outputs(); }) {
      row.resize(static_cast<std::size_t>(w.inputs()));
      for (index_t n = 0; n < w.outputs(); ++n) {
        w.get_row(n, std::span(row));
        writer.write(row);
      }
    } else {
      writer.write(w.span());
    }
  });
  writer.commit();
  write_file(join_path(folder, "config.json"), json);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
