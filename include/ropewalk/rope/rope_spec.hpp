// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The text form of frequency policies: `yarn:factor=4,original_max_position_embeddings=256`.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/rope/any_frequency.hpp"
#include "ropewalk/rope/spec_fields.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

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
  const auto with_origin = [&origin](const Error& error) {
    ErrorInfo info = error.info();
    info.kind = origin.kind;
    info.file = origin.file;
    if (!origin.where.empty()) info.where = origin.where;
    return info;
  };
  Methods::for_each([&]<class P>(P policy) {
    if (P::name != method) return;
    detail::check_keys(policy, values, origin);
    P::fields(policy, detail::FieldReader{method, model, values, origin});
    try {
      made.emplace(policy, detail::read_modifiers(policy, method, model, values, origin));
    } catch (const Error& error) {
      fail(with_origin(error));
    }
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
    fail(with_origin(error));
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

/// The canonical text: method and every field in order, then the modifiers that are set, numbers in
/// their shortest exact form. It needs no model to be read, and parse_rope(to_text(p), model) == p
/// for any model without modifiers, which are the only thing that a canonical text leaves out.
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
    } else if constexpr (std::is_same_v<T, std::vector<double>>) {
      std::string list;
      for (const double x : value) list += (list.empty() ? "[" : ",") + number_text(x);
      append(field, list.empty() ? "[]" : list + "]");
    } else {
      append(field, number_text(value));
    }
  });
  const RopeModifiers modifiers = modifiers_of(policy);
  RopeModifiers::fields(modifiers, [&append](const Field& field, const auto& value) {
    if (!value) return;
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(*value)>, bool>) {
      append(field, *value ? "true" : "false");
    } else {
      append(field, number_text(*value));
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
