// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The rotary settings of a Hugging Face config.json, old and new spelling.

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/io/json.hpp"
#include "ropewalk/rope/rope_spec.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// The dictionary of rotary settings, if any, with its place.
inline std::optional<JsonView> find_hf_rope_dict(const JsonView& root) {
  const auto parameters = root.find("rope_parameters");
  const auto scaling = root.find("rope_scaling");
  for (const auto* dict : {&parameters, &scaling}) {
    if (*dict && (*dict)->as_object().keys.empty()) (*dict)->refuse("null, or an object with keys");
  }
  if (parameters && scaling) {
    // Both spellings at once: they must say the same, apart from what only the new one holds.
    const auto other_key = [](std::string_view key) {
      return key == "type" ? "rope_type" : key == "rope_type" ? "type" : "";
    };
    const auto compare = [&](const JsonView& a, const JsonView& b) {
      const Json::Object& members = a.as_object();
      for (std::size_t i = 0; i < members.keys.size(); ++i) {
        const std::string& key = members.keys[i];
        const Json* other = b.value().find(key);
        if (other == nullptr) other = b.value().find(other_key(key));
        if (other == nullptr && (key == "rope_theta" || key == "partial_rotary_factor")) continue;
        if (other == nullptr || !same_json(members.values[i], *other)) {
          a.member(key, members.values[i])
              .refuse("the same in rope_parameters and rope_scaling", "Remove one of the two");
        }
      }
    };
    compare(*parameters, *scaling);
    compare(*scaling, *parameters);
  }
  return parameters ? parameters : scaling;
}

/// rope_type, or the older spelling type. \throws Error(config) when both are there and differ.
inline std::string hf_rope_type(const JsonView& dict) {
  const auto type = dict.find("rope_type");
  const auto old_type = dict.find("type");
  if (type && old_type && type->as_string() != old_type->as_string()) {
    old_type->refuse("the same as rope_type = " + escaped(type->as_string()),
                     "Remove the wrong one");
  }
  if (type) return type->as_string();
  return old_type ? old_type->as_string() : "default";
}

/// A JSON scalar as the text that make_rope takes.
inline std::string rope_value_text(const JsonView& v) {
  if (v.value().if_array() != nullptr || v.value().if_object() != nullptr) {
    v.refuse("a number, boolean or null");
  }
  if (v.is_null()) return "null";
  if (const std::string* s = v.value().if_string()) return "\"" + *s + "\"";
  return json_found_text(v.value());
}

/// The first of `keys` that `from` has; an explicit null is an error for theta.
inline std::optional<double> first_number(const JsonView& from,
                                          std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (from.value().find(key) != nullptr) return from.at(key).as_number();
  }
  return std::nullopt;
}

}  // namespace detail

/// Reads the rotary settings of a config.json.
///  - Dictionary: rope_parameters, else rope_scaling; both must agree.
///  - theta: dictionary's rope_theta, else the top-level rope_theta, else rotary_emb_base, else
///    10000 with a note.
///  - Original length, for yarn and llama3: the top-level original_max_position_embeddings, else
///    the dictionary's, else max_position_embeddings with a note; for dynamic always the last.
///  - yarn with factor null: max_position_embeddings / original length.
/// \throws Error(config) for wrong, missing and unknown keys; Error(unsupported) for unknown
/// methods, partial rotation and settings per layer type; never a silent default.
/// Source: transformers, modeling_rope_utils.py.
inline AnyFrequency parse_hf_rope(const JsonView& root, index_t head_dim,
                                  std::int64_t max_position_embeddings,
                                  std::vector<std::string>& notes) {
  const std::optional<JsonView> dict = detail::find_hf_rope_dict(root);
  if (dict) {
    const Json::Object& members = dict->as_object();
    for (std::size_t i = 0; i < members.keys.size(); ++i) {
      if (members.keys[i] == "full_attention" || members.keys[i] == "sliding_attention") {
        dict->member(members.keys[i], members.values[i])
            .refuse("one set of keys for all layers", "Settings per layer type are not supported",
                    ErrorClass::unsupported);
      }
    }
  }
  const std::string type = dict ? detail::hf_rope_type(*dict) : "default";
  const std::string where = dict ? dict->pointer() : "";
  const SpecOrigin origin{.kind = ErrorClass::config, .file = root.file(), .where = where};
  if (type == "ntk") {
    fail({.kind = ErrorClass::unsupported,
          .file = root.file(),
          .where = where,
          .field = "rope method",
          .found = "\"ntk\"",
          .expected = "a type that means one formula: in configuration files this one has several",
          .fix = "For NTK-aware scaling give rope_theta * factor^(d / (d - 2)) as rope_theta"});
  }
  if (dict && type == "dynamic" && dict->find("alpha")) {
    dict->at("alpha").refuse("no alpha", "Scaling by alpha is not supported",
                             ErrorClass::unsupported);
  }

  ModelRope model{.max_position_embeddings = max_position_embeddings};
  std::optional<double> theta,
      outer_theta = detail::first_number(root, {"rope_theta", "rotary_emb_base"});
  if (dict) theta = detail::first_number(*dict, {"rope_theta"});
  if (theta && outer_theta && *theta != *outer_theta) {
    notes.push_back("rope_theta is " + number_text(*theta) + " in " + where + " and " +
                    number_text(*outer_theta) + " at the top: the former holds");
  }
  if (!theta) theta = outer_theta;
  if (!theta) notes.push_back("rope_theta is not given: transformers' default 10000 taken");
  model.rope_theta = theta.value_or(10000);

  std::optional<double> partial;
  if (dict) partial = detail::first_number(*dict, {"partial_rotary_factor"});
  if (!partial) {
    partial = detail::first_number(root, {"partial_rotary_factor", "rotary_pct", "rope_pct"});
  }
  if (partial && *partial != 1) {
    const bool possible = *partial > 0 && *partial < 1;
    fail({.kind = possible ? ErrorClass::unsupported : ErrorClass::config,
          .file = root.file(),
          .field = "partial_rotary_factor",
          .found = number_text(*partial),
          .expected = possible ? "1" : "a number in (0, 1]",
          .fix = possible ? "Partial rotation is not supported in Llama models" : ""});
  }

  std::vector<KeyValue> values{{"rope_theta", number_text(model.rope_theta)}};
  const bool has_length =
      type == "yarn" || type == "yarn_paper" || type == "llama3" || type == "ntk_by_parts";
  const auto outer_length = root.find("original_max_position_embeddings");
  std::int64_t length = max_position_embeddings;
  if (has_length) {
    const auto inner = dict->find("original_max_position_embeddings");
    if (outer_length && inner && outer_length->as_integer() != inner->as_integer()) {
      notes.push_back("original_max_position_embeddings differs between " + where +
                      " and the top level: the latter holds");
    }
    if (outer_length || inner) {
      const JsonView& given = outer_length ? *outer_length : *inner;
      length = given.as_integer();
      if (length < 1) given.refuse("an integer of at least 1");
      if (type == "llama3" && length >= max_position_embeddings) {
        given.refuse("less than max_position_embeddings = " +
                     std::to_string(max_position_embeddings));
      }
    } else {
      notes.push_back("original_max_position_embeddings is not given: max_position_embeddings = " +
                      std::to_string(length) + " taken");
    }
    values.push_back({"original_max_position_embeddings", std::to_string(length)});
  } else if (outer_length) {
    notes.push_back("original_max_position_embeddings is not used by rope type " + escaped(type));
  }
  const Json::Object none{};
  const Json::Object& members = dict ? dict->as_object() : none;
  for (std::size_t i = 0; i < members.keys.size(); ++i) {
    const std::string& key = members.keys[i];
    const JsonView v = dict->member(key, members.values[i]);
    if (key == "rope_type" || key == "type" || key == "rope_theta" ||
        key == "partial_rotary_factor" ||
        (key == "original_max_position_embeddings" && has_length)) {
      continue;
    }
    if (key == "finetuned" && type == "yarn") {  // bookkeeping of the YaRN authors' checkpoints
      v.as_bool();
      continue;
    }
    if (key == "original_max_position_embeddings" && type == "dynamic" &&
        v.as_integer() != max_position_embeddings) {
      v.refuse("max_position_embeddings = " + std::to_string(max_position_embeddings) +
               ", which is the original length of dynamic");
    }
    if (v.is_null() && key == "factor" && type == "yarn") {
      const double factor =
          static_cast<double>(max_position_embeddings) / static_cast<double>(length);
      values.push_back({"factor", number_text(factor)});
      notes.push_back("factor is null: max_position_embeddings / original length = " +
                      number_text(factor) + " taken");
      continue;
    }
    values.push_back({key, detail::rope_value_text(v)});
  }
  const AnyFrequency rope = make_rope(type, model, values, origin);
  try {
    rope.check({.rotary_dim = head_dim});
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    info.file = root.file();
    info.where = where;
    fail(std::move(info));
  }
  return rope;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
