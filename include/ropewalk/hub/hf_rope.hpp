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

/// rope_type, or the older spelling type; longrope's older name su. \throws Error(config) when both
/// are there and differ.
inline std::string hf_rope_type(const JsonView& dict) {
  const auto type = dict.find("rope_type");
  const auto old_type = dict.find("type");
  if (type && old_type && type->as_string() != old_type->as_string()) {
    old_type->refuse("the same as rope_type = " + escaped(type->as_string()),
                     "Remove the wrong one");
  }
  const auto name = [](const std::string& given) { return given == "su" ? "longrope" : given; };
  if (type) return name(type->as_string());
  return old_type ? name(old_type->as_string()) : "default";
}

/// A JSON scalar or list of numbers as the text that make_rope takes.
inline std::string rope_value_text(const JsonView& v) {
  if (v.value().if_array() != nullptr) {
    std::string list;
    for (const JsonView& x : v.elements()) {
      list += (list.empty() ? "[" : ",") + number_text(x.as_number());
    }
    return list.empty() ? "[]" : list + "]";
  }
  if (v.value().if_object() != nullptr) v.refuse("a number, boolean, list or null");
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

/// Which channels rotate: partial_rotary_factor of the dictionary, else partial_rotary_factor,
/// rotary_pct or rope_pct at the top; or GPT-J's rotary_dim. All that are given must agree.
inline void read_hf_part(const JsonView& root, const std::optional<JsonView>& dict,
                         index_t head_dim, RopeModifiers& out) {
  std::optional<double> inner, outer;
  if (dict) inner = first_number(*dict, {"partial_rotary_factor"});
  for (const char* key : {"partial_rotary_factor", "rotary_pct", "rope_pct"}) {
    const std::optional<double> share = first_number(root, {key});
    if (!share) continue;
    const std::optional<double>& other = inner ? inner : outer;
    if (other && *share != *other) {
      root.at(key).refuse("the same as the other partial_rotary_factor = " + number_text(*other),
                          "Remove the wrong one");
    }
    outer = share;
  }
  out.partial_rotary_factor = inner ? inner : outer;
  const auto rotary_dim = root.find("rotary_dim");
  if (rotary_dim) {
    const RopeModifiers absolute{.rotary_dim = rotary_dim->as_integer()};
    if (!out.partial_rotary_factor) {
      out = absolute;
    } else if (rotated_part(absolute, head_dim).rotary_dim !=
               rotated_part(out, head_dim).rotary_dim) {
      rotary_dim->refuse("what partial_rotary_factor = " + number_text(*out.partial_rotary_factor) +
                             " gives: " + std::to_string(rotated_part(out, head_dim).rotary_dim),
                         "Remove the wrong one");
    }
  }
  // All of the head is what no setting means too.
  if (out.partial_rotary_factor == 1.0) out.partial_rotary_factor.reset();
  if (out.rotary_dim == head_dim) out.rotary_dim.reset();
}

/// Qwen-1's log-n scaling: use_logn_attn, with the trained length seq_length.
inline void read_hf_logn(const JsonView& root, std::int64_t max_position_embeddings,
                         RopeModifiers& out) {
  const auto dynamic = root.find("use_dynamic_ntk");
  if (dynamic && dynamic->as_bool()) {
    dynamic->refuse("false", "Qwen-1's steps of dynamic NTK are not supported",
                    ErrorClass::unsupported);
  }
  const auto logn = root.find("use_logn_attn");
  if (!logn || !logn->as_bool()) return;
  const auto length = root.find("seq_length");
  out.logn_length = length ? length->as_integer() : max_position_embeddings;
  if (length && *out.logn_length < 2) length->refuse("an integer of at least 2");
}

}  // namespace detail

/// Reads the rotary settings of a config.json.
///  - Dictionary: rope_parameters, else rope_scaling; both must agree.
///  - theta: dictionary's rope_theta, else the top-level rope_theta, else rotary_emb_base, else
///    10000 with a note.
///  - Original length, for yarn, llama3 and longrope: the top-level
///    original_max_position_embeddings, else the dictionary's, else max_position_embeddings with a
///    note; for dynamic always the last.
///  - yarn with factor null, longrope without factor: max_position_embeddings / original length.
///  - Partial rotation: partial_rotary_factor of the dictionary or the top level, rotary_pct,
///    rope_pct, rotary_dim. For rope_type proportional partial_rotary_factor is the method's own.
///  - Log-n: use_logn_attn with seq_length.
/// \throws Error(config) for wrong, missing and unknown keys; Error(unsupported) for unknown
/// methods and settings per layer type; never a silent default.
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

  const auto in_file = [&](auto&& read) {
    try {
      return read();
    } catch (const Error& error) {
      ErrorInfo info = error.info();
      info.file = root.file();
      if (info.where.empty() || info.where.front() != '/') info.where = where;
      fail(std::move(info));
    }
  };
  in_file([&] {
    detail::read_hf_part(root, dict, head_dim, model.modifiers);
    detail::read_hf_logn(root, max_position_embeddings, model.modifiers);
    check_modifiers(model.modifiers);
  });

  std::vector<KeyValue> values{{"rope_theta", number_text(model.rope_theta)}};
  if (type == "proportional") {
    if (const auto rotary_dim = root.find("rotary_dim")) {
      rotary_dim->refuse("no rotary_dim beside rope type proportional");
    }
    if (!model.modifiers.partial_rotary_factor && !dict->find("partial_rotary_factor")) {
      notes.push_back("partial_rotary_factor is not given: transformers' default 1 taken");
    }
    values.push_back(
        {"partial_rotary_factor", number_text(model.modifiers.partial_rotary_factor.value_or(1))});
  }
  const bool has_length = type == "yarn" || type == "yarn_paper" || type == "llama3" ||
                          type == "ntk_by_parts" || type == "longrope";
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
  if (type == "longrope" && !dict->find("factor")) {
    const double factor =
        static_cast<double>(max_position_embeddings) / static_cast<double>(length);
    values.push_back({"factor", number_text(factor < 1 ? 1 : factor)});
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
    if (v.is_null() && key == "factor" && type == "longrope") continue;  // as if not there
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
  in_file([&] {
    const RotatedPart part = rotated_part(rope.modifiers(), head_dim);
    rope.check({.rotary_dim = part.rotary_dim});
  });
  return rope;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
