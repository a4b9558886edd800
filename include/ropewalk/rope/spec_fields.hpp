// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// How the fields of a policy are set from keys and values: what rope_spec.hpp reads specs with.

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/text_match.hpp"
#include "ropewalk/rope/modifiers.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What a spec may leave out, taken from the model. 0: the model does not say, so specs must.
struct ModelRope {
  double rope_theta = 0;
  std::int64_t max_position_embeddings = 0;  ///< trained length, tokens
  RopeModifiers modifiers = {};              ///< which channels rotate, log-n scaling
};

/// What specs may leave out for a model of this rope and trained length.
template <FrequencyPolicy P>
ModelRope model_rope(const P& rope, std::int64_t max_position_embeddings) {
  return {.rope_theta = rope_theta_of(rope),
          .max_position_embeddings = max_position_embeddings,
          .modifiers = modifiers_of(rope)};
}

/// A field's value as text: a JSON token (8, 0.5, true, null, [1,1.5]; a string keeps its quotes
/// and is rejected where a number belongs), or a length such as 4K.
struct KeyValue {
  std::string key = {};
  std::string value = {};
};

/// Where a spec comes from: what its errors say and which class they have.
struct SpecOrigin {
  ErrorClass kind = ErrorClass::usage;  ///< usage for a command line, config for a file
  std::string file = {};
  std::string where = {};
};

namespace detail {

[[noreturn]] inline void fail_spec(const SpecOrigin& origin, std::string field, std::string found,
                                   std::string expected, std::string fix = {}) {
  fail({.kind = origin.kind,
        .file = origin.file,
        .where = origin.where,
        .field = std::move(field),
        .found = std::move(found),
        .expected = std::move(expected),
        .fix = std::move(fix)});
}

/// Known words, for a message: all of them, and the nearest to the one given.
struct KnownWords {
  NearestWord nearest;
  std::string list = {};
  bool found = false;

  explicit KnownWords(std::string_view word) : nearest(word), word_(word) {}
  void add(std::string_view known) {
    if (!list.empty()) list += ", ";
    list += known;
    nearest.offer(known);
    found = found || known == word_;
  }
  std::string suggestion() const {
    if (nearest.best().empty()) return {};
    return "Did you mean " + std::string(nearest.best()) + "?";
  }

 private:
  std::string_view word_;
};

/// Sets the fields of one policy from values and the model. A visitor of fields.
struct FieldReader {
  std::string_view method;
  const ModelRope& model;
  std::span<const KeyValue> values;
  const SpecOrigin& origin;

  const KeyValue* find(const Field& field) const {
    for (const KeyValue& v : values) {
      if (v.key == field.key) return &v;
    }
    return nullptr;
  }
  [[noreturn]] void reject(const Field& field, const KeyValue& v, std::string rule) const {
    fail_spec(origin, std::string(field.key), escaped(v.value), std::move(rule));
  }
  [[noreturn]] void missing(const Field& field, std::string why) const {
    fail_spec(origin, std::string(field.key), "no value", std::move(why),
              "Give " + std::string(field.key) + " for the method " + std::string(method));
  }
  double number(const Field& field, const KeyValue& v) const {
    const std::optional<double> x = parse_real(v.value);
    if (!x) reject(field, v, rule_text(field));
    return *x;
  }

  void operator()(const Field& field, double& out) const {
    if (const KeyValue* v = find(field)) {
      out = number(field, *v);
    } else if (field.fallback == Fallback::model_theta) {
      if (model.rope_theta == 0) missing(field, "a value: the model states none");
      out = model.rope_theta;
    } else if (field.fallback == Fallback::none) {
      missing(field, rule_text(field));
    }
  }
  void operator()(const Field& field, std::int64_t& out) const {
    if (const KeyValue* v = find(field)) {
      const std::optional<std::int64_t> x = parse_size(v->value);
      if (!x) reject(field, *v, "an integer");
      out = *x;
    } else if (field.fallback == Fallback::model_length) {
      if (model.max_position_embeddings == 0) missing(field, "a value: the model states none");
      out = model.max_position_embeddings;
    } else if (field.fallback == Fallback::none) {
      missing(field, "an integer");
    }
  }
  void operator()(const Field& field, bool& out) const {
    if (const KeyValue* v = find(field)) {
      if (v->value != "true" && v->value != "false") reject(field, *v, "true or false");
      out = v->value == "true";
    } else if (field.fallback == Fallback::none) {
      missing(field, "true or false");
    }
  }
  void operator()(const Field& field, std::optional<double>& out) const {
    if (const KeyValue* v = find(field)) {
      if (v->value == "null") {
        out.reset();
      } else {
        if (!parse_real(v->value)) reject(field, *v, rule_text(field) + ", or null");
        out = number(field, *v);
      }
    } else if (field.fallback == Fallback::none) {
      missing(field, rule_text(field) + ", or null");
    }
  }
  void operator()(const Field& field, std::vector<double>& out) const {
    const KeyValue* v = find(field);
    if (v == nullptr) {
      if (field.fallback == Fallback::none) missing(field, "a list [NUMBER,...]");
      return;
    }
    const auto refuse = [&](std::string_view item) {
      fail_spec(origin, std::string(field.key), escaped(item),
                "a list [NUMBER,...], each " + rule_text(field));
    };
    std::string_view list = v->value;
    if (list.size() < 2 || list.front() != '[' || list.back() != ']') refuse(list);
    list = list.substr(1, list.size() - 2);
    out.clear();
    for (bool more = true; more;) {
      const std::size_t comma = list.find(',');
      const std::string_view item = list.substr(0, comma);
      const std::optional<double> x = parse_real(item);
      if (!x) refuse(item);
      out.push_back(*x);
      more = comma != std::string_view::npos;
      list.remove_prefix(more ? comma + 1 : list.size());
    }
  }
  // Of modifiers: "null" unsets.
  void operator()(const Field& field, std::optional<std::int64_t>& out) const {
    set_optional(field, out, "an integer, or null",
                 [](std::string_view text) { return parse_size(text); });
  }
  void operator()(const Field& field, std::optional<bool>& out) const {
    set_optional(field, out, "true, false or null", [](std::string_view text) {
      return text == "true"    ? std::optional(true)
             : text == "false" ? std::optional(false)
                               : std::nullopt;
    });
  }

 private:
  template <class T, class Parse>
  void set_optional(const Field& field, std::optional<T>& out, std::string rule,
                    Parse&& parse) const {
    const KeyValue* v = find(field);
    if (v == nullptr) return;
    out.reset();
    if (v->value == "null") return;
    out = parse(v->value);
    if (!out) reject(field, *v, std::move(rule));
  }
};

/// Whether the policy has a field of this key.
template <FrequencyPolicy P>
bool has_key(const P& policy, std::string_view key) {
  bool found = false;
  P::fields(policy, [&](const Field& field, const auto&) { found = found || field.key == key; });
  return found;
}

/// The modifiers of a spec: what it says, else what the model says. A spec that says anything of
/// the part that rotates says all of it; so it is with log-n. A method with a
/// partial_rotary_factor of its own does not take the part from the model.
template <FrequencyPolicy P>
RopeModifiers read_modifiers(const P& policy, std::string_view method, const ModelRope& model,
                             std::span<const KeyValue> values, const SpecOrigin& origin) {
  std::vector<KeyValue> own;
  for (const KeyValue& v : values) {
    if (!has_key(policy, v.key)) own.push_back(v);
  }
  const auto given = [&own](std::initializer_list<std::string_view> keys) {
    for (const KeyValue& v : own) {
      for (const std::string_view key : keys) {
        if (v.key == key) return true;
      }
    }
    return false;
  };
  RopeModifiers m = model.modifiers;
  if (has_key(policy, "partial_rotary_factor") ||
      given({"partial_rotary_factor", "rotary_dim", "rotary_offset"})) {
    m.partial_rotary_factor.reset();
    m.rotary_dim.reset();
    m.rotary_offset.reset();
  }
  if (given({"logn_length", "logn_clip"})) {
    m.logn_length.reset();
    m.logn_clip.reset();
  }
  RopeModifiers::fields(m, FieldReader{method, model, own, origin});
  check_modifiers(m);
  return m;
}

/// Every key known and given once. Looked at before the values: a mistyped key is the better
/// message than the required one that it leaves out.
template <FrequencyPolicy P>
void check_keys(const P& policy, std::span<const KeyValue> values, const SpecOrigin& origin) {
  const RopeModifiers modifiers;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const KeyValue& v = values[i];
    KnownWords keys(v.key);
    P::fields(policy, [&keys](const Field& field, const auto&) { keys.add(field.key); });
    RopeModifiers::fields(modifiers, [&](const Field& field, const auto&) {
      if (!has_key(policy, field.key)) keys.add(field.key);
    });
    if (!keys.found) {
      fail_spec(origin, escaped(v.key), "an unknown key",
                "a key of the method " + std::string(P::name) + ": " + keys.list,
                keys.suggestion());
    }
    for (std::size_t k = 0; k < i; ++k) {
      if (values[k].key == v.key) {
        fail_spec(origin, v.key, escaped(values[k].value) + " and " + escaped(v.value), "one value",
                  "Remove one of the two");
      }
    }
  }
}

/// Cuts the first item of a comma-separated list off `list`; commas in brackets do not separate.
/// `more` tells whether a comma followed. \throws Error when brackets do not match.
inline std::string_view take_item(std::string_view& list, bool& more, const SpecOrigin& origin) {
  std::string open;  // brackets opened and not closed yet
  std::size_t end = 0;
  for (; end < list.size() && !(list[end] == ',' && open.empty()); ++end) {
    const char c = list[end];
    if (c == '[' || c == '{') {
      open += c;
    } else if (c == ']' || c == '}') {
      if (open.empty() || open.back() != (c == ']' ? '[' : '{')) {
        fail_spec(origin, {}, std::string("an unmatched ") + c, "matching brackets");
      }
      open.pop_back();
    }
  }
  if (!open.empty()) {
    fail_spec(origin, {}, std::string("an unmatched ") + open.back(), "matching brackets");
  }
  const std::string_view item = list.substr(0, end);
  more = end < list.size();
  list.remove_prefix(more ? end + 1 : end);
  return item;
}

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
