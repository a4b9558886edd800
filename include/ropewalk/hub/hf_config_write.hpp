// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Writes Hugging Face's config.json of a Llama, so that hf_config.hpp reads the same model back.

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ropewalk/hub/hf_config.hpp"
#include "ropewalk/io/json_write.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Whether LlamaForCausalLM of transformers computes this model. It knows neither norm_head nor
/// log-n nor heads of which a part rotates, and leaves such keys unread without a word; nor the
/// methods that are this library's own.
inline bool transformers_computes(const LlamaConfig& config, const AnyFrequency& rope) {
  const RopeModifiers& m = rope.modifiers();
  const std::string_view method = rope.method();
  const auto* longrope = rope.get_if<LongRope>();
  const bool own_method = method == "ntk_by_parts" || method == "yarn_paper";
  const bool own_scale = longrope != nullptr && (longrope->short_mscale || longrope->long_mscale);
  return !config.norm_head && !m.states_part() && !m.states_logn() && !m.logit_scale &&
         !own_method && !own_scale;
}

namespace detail {

/// A real number that JSON readers take for one: 10000.0, not 10000.
inline std::string json_real(double value) {
  std::string text = number_text(value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

/// The modifiers without what changes nothing.
inline RopeModifiers stated_modifiers(RopeModifiers m, index_t head_dim) {
  if (m.rotary_offset == 0) m.rotary_offset.reset();
  if (!m.rotary_offset && m.partial_rotary_factor == 1.0) m.partial_rotary_factor.reset();
  if (!m.rotary_offset && m.rotary_dim == head_dim) m.rotary_dim.reset();
  if (m.logit_scale == 1.0) m.logit_scale.reset();
  if (m.logn_length == 0) m.logn_length.reset();
  if (m.logn_clip == true) m.logn_clip.reset();
  return m;
}

/// The same rope as config.json names it. NTK-aware scaling has no name of one meaning there: it is
/// written as the base that it is, the frequencies of which differ by roundings. p_rope is
/// proportional.
inline AnyFrequency stated_rope(const AnyFrequency& rope, const LlamaConfig& config) {
  const RopeModifiers modifiers = stated_modifiers(rope.modifiers(), config.head_dim);
  return rope.visit([&]<class P>(P policy) -> AnyFrequency {
    if constexpr (std::is_same_v<P, NtkAware>) {
      const RotatedPart part = rotated_part(modifiers, config.head_dim);
      policy.check({.rotary_dim = part.rotary_dim});
      const auto d = static_cast<double>(part.rotary_dim);
      const double theta = policy.rope_theta * elementary::pow(policy.factor, d, d - 2);
      return {AdjustedBase{.rope_theta = theta}, modifiers};
    } else if constexpr (std::is_same_v<P, PRope>) {
      return {Proportional{.rope_theta = policy.rope_theta, .partial_rotary_factor = policy.p},
              modifiers};
    } else if constexpr (std::is_same_v<P, LongRope>) {
      // Left out, it would be this ratio. Here it decides nothing: check() asks for another scale.
      const double ratio = static_cast<double>(config.max_position_embeddings) /
                           static_cast<double>(policy.original_max_position_embeddings);
      if (!policy.factor) policy.factor = ratio < 1 ? 1 : ratio;
      return {policy, modifiers};
    } else {
      return {policy, modifiers};
    }
  });
}

/// Members of the dictionary of rotary settings, rope_theta aside.
inline std::string hf_rope_members(const AnyFrequency& rope) {
  std::string out;
  AnyFrequency::fields(rope, [&out, &rope](const Field& field, const auto& value) {
    using T = std::remove_cvref_t<decltype(value)>;
    // dynamic's original length is max_position_embeddings.
    const bool implied = rope.method() == "dynamic" && field.key == original_length_field.key;
    if (field.key == rope_theta_field.key || implied) return;
    std::string text;
    if constexpr (std::is_same_v<T, bool>) {
      text = value ? "true" : "false";
    } else if constexpr (std::is_same_v<T, std::int64_t>) {
      text = json_number(value);
    } else if constexpr (std::is_same_v<T, double>) {
      text = json_real(value);
    } else if constexpr (std::is_same_v<T, std::optional<double>>) {
      if (!value) return;
      text = json_real(*value);
    } else {
      for (const double x : value) text += (text.empty() ? "[" : ", ") + json_real(x);
      text = text.empty() ? "[]" : text + "]";
    }
    out += ",\n    " + json_escape(field.key) + ": " + text;
  });
  return out;
}

/// \throws Error(unsupported) unless `json` says config and rope
inline void check_hf_config_json(const std::string& json, const LlamaConfig& config,
                                 const AnyFrequency& rope) {
  HfConfig back;
  try {
    const JsonDocument document = parse_json(json, "config.json");
    back = parse_hf_config(document.view());
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    if (info.kind == ErrorClass::config) info.kind = ErrorClass::unsupported;
    fail(std::move(info));
  }
  if (back.rope != rope) {
    fail({.kind = ErrorClass::unsupported,
          .field = "rope",
          .found = to_text(rope),
          .expected = "a setting that config.json can say; it would say " + to_text(back.rope)});
  }
  if (back.config != config) {
    fail({.kind = ErrorClass::internal, .expected = "a config.json that says the model's shape"});
  }
}

}  // namespace detail

/// config.json of a model whose weights are stored as F32 in the half_split layout. `eos_ids`: ids
/// that end a text. Rotary settings are in both spellings, rope_scaling for transformers 4 and
/// rope_parameters for 5. What LlamaForCausalLM would compute otherwise is written as
/// IndexForCausalLM, which transformers does not know and so refuses to open, while parse_hf_config
/// does.
/// \throws Error(unsupported) for what config.json cannot say: a logit_scale, a rotary_offset,
/// log-n without its max, dynamic with an original length other than max_position_embeddings,
/// llama3 with one not below it
inline std::string hf_config_json(const LlamaConfig& model, const AnyFrequency& rope,
                                  const std::vector<TokenId>& eos_ids = {}) {
  LlamaConfig c = model;
  c.pair_layout = PairLayout::half_split;
  c.check();
  const AnyFrequency stated = detail::stated_rope(rope, c);
  const bool known = transformers_computes(c, stated);
  std::string json;
  const auto add = [&](const char* key, const std::string& value) {
    json += (json.empty() ? "{\n  " : ",\n  ") + json_escape(key) + ": " + value;
  };
  add("architectures", known ? "[\"LlamaForCausalLM\"]" : "[\"IndexForCausalLM\"]");
  add("model_type", known ? "\"llama\"" : "\"index\"");
  add("hidden_act", "\"silu\"");
  add("torch_dtype", "\"float32\"");
  add("attention_bias", "false");
  add("mlp_bias", "false");
  add("hidden_size", json_number(c.hidden_size));
  add("intermediate_size", json_number(c.intermediate_size));
  add("num_hidden_layers", json_number(c.num_hidden_layers));
  add("num_attention_heads", json_number(c.num_attention_heads));
  add("num_key_value_heads", json_number(c.num_key_value_heads));
  add("head_dim", json_number(c.head_dim));
  add("vocab_size", json_number(c.vocab_size));
  add("max_position_embeddings", json_number(c.max_position_embeddings));
  add("rms_norm_eps", detail::json_real(c.rms_norm_eps));
  add("tie_word_embeddings", c.tie_word_embeddings ? "true" : "false");
  if (c.norm_head) add("norm_head", "true");
  // Left out, they would be ids 1 and 2 to transformers.
  add("bos_token_id", "null");
  std::string ids;
  for (const TokenId id : eos_ids) ids += (ids.empty() ? "[" : ", ") + std::to_string(id);
  add("eos_token_id", ids.empty() ? "null" : ids + "]");

  const RopeModifiers& m = stated.modifiers();
  if (m.partial_rotary_factor) {
    add("partial_rotary_factor", detail::json_real(*m.partial_rotary_factor));
  }
  if (m.rotary_dim) add("rotary_dim", json_number(*m.rotary_dim));
  if (m.logn_length) {
    add("use_logn_attn", "true");
    add("seq_length", json_number(*m.logn_length));
  }
  const std::string theta = detail::json_real(rope_theta_of(stated));
  const std::string type = "{\n    \"rope_type\": " + json_escape(stated.method());
  const std::string members = detail::hf_rope_members(stated) + "\n  }";
  add("rope_theta", theta);
  if (stated.method() != "default") add("rope_scaling", type + members);
  add("rope_parameters", type + ",\n    \"rope_theta\": " + theta + members);
  json += "\n}\n";
  detail::check_hf_config_json(json, c, stated);
  return json;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
