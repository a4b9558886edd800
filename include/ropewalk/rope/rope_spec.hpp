// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The text form of frequency policies: `yarn:factor=4,original_max_position_embeddings=256`.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/core/text_match.hpp"
#include "ropewalk/rope/any_frequency.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What a spec may leave out, taken from the model. 0: the model does not say, so specs must.
struct ModelRope {
  double rope_theta = 0;
  std::int64_t max_position_embeddings = 0;  ///< trained length, tokens
};

/// A field's value as text: a JSON token (8, 0.5, true, null; a string keeps its quotes and is
/// rejected where a number belongs), or a length such as 4K.
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
};

/// Every key known and given once. Looked at before the values: a mistyped key is the better
/// message than the required one that it leaves out.
template <FrequencyPolicy P>
void check_keys(const P& policy, std::span<const KeyValue> values, const SpecOrigin& origin) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const KeyValue& v = values[i];
    KnownWords keys(v.key);
    P::fields(policy, [&keys](const Field& field, const auto&) { keys.add(field.key); });
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

/// Names of all methods.
template <class Methods = FrequencyMethods>
std::vector<std::string_view> rope_methods() {
  std::vector<std::string_view> names;
  Methods::for_each([&names](const auto& p) { names.push_back(p.name); });
  return names;
}

/// Builds a policy from its method's name and values; the model fills what may be left out.
/// Keys are those of config.json; every one must belong to the method. Rules that depend on the
/// head's shape are checked when the plan is made.
/// \throws Error(origin.kind) that names key, value and rule; an unknown method in a file is
/// Error(unsupported).
template <class Methods = FrequencyMethods>
AnyFrequencyOf<Methods> make_rope(std::string_view method, const ModelRope& model,
                                  std::span<const KeyValue> values, const SpecOrigin& origin = {}) {
  std::optional<AnyFrequencyOf<Methods>> made;
  Methods::for_each([&]<class P>(P policy) {
    if (P::name != method) return;
    detail::check_keys(policy, values, origin);
    P::fields(policy, detail::FieldReader{method, model, values, origin});
    made = policy;
  });
  if (!made) {
    detail::KnownWords methods(method);
    Methods::for_each([&methods](const auto& p) { methods.add(p.name); });
    SpecOrigin at = origin;
    if (at.kind == ErrorClass::config) at.kind = ErrorClass::unsupported;
    detail::fail_spec(at, "rope method", escaped(method), "one of " + methods.list,
                      methods.suggestion());
  }
  try {
    made->check({});
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    info.kind = origin.kind;
    info.file = origin.file;
    if (!origin.where.empty()) info.where = origin.where;
    fail(std::move(info));
  }
  return *std::move(made);
}

/// Reads `METHOD`, `METHOD:KEY=VALUE,...` or `theta=NUMBER` (short for default:rope_theta=NUMBER).
/// `default` alone is plain RoPE with the model's base; callers who have the model's own policy use
/// that instead. \throws Error(usage) naming the culprit.
template <class Methods = FrequencyMethods>
AnyFrequencyOf<Methods> parse_rope(std::string_view spec, const ModelRope& model) {
  const SpecOrigin origin = {.where = "rope spec " + escaped(spec)};
  if (spec.find_first_of("{}") != std::string_view::npos) {
    detail::fail_spec(origin, {}, "a set {...}", "one setting");
  }
  const std::string_view grammar = "METHOD or METHOD:KEY=VALUE,...";
  if (spec.substr(0, 6) == "theta=") {
    return make_rope<Methods>("default", model,
                              std::vector<KeyValue>{{"rope_theta", std::string(spec.substr(6))}},
                              origin);
  }
  const std::size_t colon = spec.find(':');
  const std::string_view method = spec.substr(0, colon);
  if (method.empty() || method.find('=') != std::string_view::npos) {
    detail::fail_spec(origin, "rope method", escaped(method), std::string(grammar));
  }
  std::vector<KeyValue> values;
  if (colon != std::string_view::npos) {
    std::string_view list = spec.substr(colon + 1);
    for (bool more = true; more;) {
      const std::string_view item = detail::take_item(list, more, origin);
      const std::size_t equals = item.find('=');
      if (equals == std::string_view::npos || equals == 0 || equals + 1 == item.size()) {
        detail::fail_spec(origin, {}, escaped(item), "KEY=VALUE");
      }
      values.push_back({std::string(item.substr(0, equals)), std::string(item.substr(equals + 1))});
    }
  }
  return make_rope<Methods>(method, model, values, origin);
}

/// The canonical text: method and every field in order, numbers in their shortest exact form. It
/// needs no model to be read, and parse_rope(to_text(p), any model) == p.
template <FrequencyPolicy P>
std::string to_text(const P& policy) {
  std::string text(method_name(policy));
  char separator = ':';
  const auto append = [&](const Field& field, const std::string& value) {
    text += separator;
    text += field.key;
    text += '=';
    text += value;
    separator = ',';
  };
  P::fields(policy, [&append](const Field& field, const auto& value) {
    using T = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_same_v<T, bool>) {
      append(field, value ? "true" : "false");
    } else if constexpr (std::is_same_v<T, std::optional<double>>) {
      append(field, value ? number_text(*value) : "null");
    } else {
      append(field, number_text(value));
    }
  });
  return text;
}

/// Hash of the configuration (of its canonical text). What really runs has FrequencyPlan's
/// rope_hash, which also depends on the shape.
template <FrequencyPolicy P>
std::uint64_t config_hash(const P& policy) {
  return Hasher().text(to_text(policy)).digest();
}

/// The settings of a spec with sets, `ntk:factor={2,4}` -> `ntk:factor=2`, `ntk:factor=4`; several
/// sets give all combinations, the first set slowest. A spec without sets gives itself.
/// \throws Error(usage) for unmatched or nested braces, an empty member, or more than 4096
/// settings.
template <class Strings = std::vector<std::string>>
Strings expand_rope_spec(std::string_view spec) {
  const SpecOrigin origin = {.where = "rope spec " + escaped(spec)};
  Strings texts;
  texts.push_back("");
  while (!spec.empty()) {
    const std::size_t open = spec.find_first_of("{}");
    for (std::string& text : texts) text += spec.substr(0, open);
    if (open == std::string_view::npos) break;
    const std::size_t close = spec.find_first_of("{}", open + 1);
    if (spec[open] != '{' || close == std::string_view::npos || spec[close] != '}') {
      detail::fail_spec(origin, {}, "unmatched or nested braces", "sets written {A,B}");
    }
    Strings extended;
    for (const std::string& text : texts) {
      std::string_view members = spec.substr(open + 1, close - open - 1);
      for (bool more = true; more;) {
        const std::string_view member = detail::take_item(members, more, origin);
        if (member.empty()) detail::fail_spec(origin, {}, "an empty member of a set", "{A,B}");
        if (extended.size() == 4096) {
          detail::fail_spec(origin, {}, "more than 4096 settings", "at most 4096 in one spec",
                            "Split the spec");
        }
        extended.push_back(text + std::string(member));
      }
    }
    texts = std::move(extended);
    spec.remove_prefix(close + 1);
  }
  return texts;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
