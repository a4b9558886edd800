// SPDX-License-Identifier: Apache-2.0
#include "manifest.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <sys/stat.h>

#include "ropewalk/io/atomic_file.hpp"
#include "ropewalk/io/json_write.hpp"

#include "cell_row.hpp"

namespace cli {

void create_folders(const std::string& path) {
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (::mkdir(part.c_str(), 0777) != 0 && errno != EEXIST) {
      fail({.kind = errno == ENOSPC || errno == EDQUOT ? ErrorClass::resource : ErrorClass::io,
            .file = part,
            .where = "creating the results folder",
            .found = os_error_text(errno)});
    }
    if (slash == std::string::npos) return;
  }
}

namespace {

/// A list of integers, of strings, or of numbers (null is NaN).
Value list_value(const JsonView& v) {
  std::vector<std::int64_t> integers;
  std::vector<double> reals;
  std::vector<std::string> texts;
  for (const JsonView& item : v.elements()) {
    const Value value = to_value(item);
    if (const auto* integer = std::get_if<std::int64_t>(&value)) integers.push_back(*integer);
    if (const auto* text = std::get_if<std::string>(&value)) texts.push_back(*text);
    reals.push_back(number_of(value));
  }
  if (integers.size() == reals.size()) return integers;
  if (texts.size() == reals.size()) return texts;
  return reals;
}

/// A field for messages; a long one is cut to what surrounds its first difference from `other`.
std::string shown(const std::string& json, const std::string& other) {
  constexpr std::size_t most = 100, before = 30;
  if (json.size() <= most) return json;
  const auto differs = std::mismatch(json.begin(), json.end(), other.begin(), other.end()).first;
  const auto at = static_cast<std::size_t>(differs - json.begin());
  const std::size_t begin = std::min(at - std::min(at, before), json.size() - most);
  return (begin > 0 ? "..." : "") + json.substr(begin, most) +
         (begin + most < json.size() ? "..." : "");
}

}  // namespace

Value to_value(const JsonView& v) {
  const Json& json = v.value();
  if (json.is_null()) return {};
  if (json.if_array() != nullptr) return list_value(v);
  if (const bool* b = json.if_bool()) return *b;
  if (const std::string* s = json.if_string()) return *s;
  if (const JsonNumber* n = json.if_number()) {
    if (n->form == JsonNumber::Form::real || n->form == JsonNumber::Form::huge) return n->real;
    if (n->form == JsonNumber::Form::natural && (n->natural >> 63) != 0) return n->natural;
    return v.as_integer();
  }
  v.refuse("a number, a string, true, false, null or a list", {}, ErrorClass::state);
}

void write_manifest(const std::string& folder, const std::string& config_hash,
                    const Row& configuration, const Row& environment) {
  std::string text = "{\n  \"config_hash\": \"" + config_hash + "\",\n  \"configuration\": {";
  const auto members = [&text](const Row& row) {
    const char* separator = "\n    ";
    for (const auto& [key, value] : row) {
      text += separator + json_escape(key) + ": " + to_json(value);
      separator = ",\n    ";
    }
  };
  members(configuration);
  text += "\n  },\n  \"environment\": {";
  members(environment);
  write_file(folder + "/manifest.json", text + "\n  }\n}\n");
}

void compare_manifest(const std::string& folder, const Row& configuration) {
  const FileSource source(folder + "/manifest.json");
  const JsonDocument document = read_json(source);
  const JsonView there = document.view().at("configuration");
  std::vector<std::string> changed;
  const auto note = [&changed](const std::string& key, const std::string& then,
                               const std::string& now) {
    changed.push_back(
        fmt::format("{} (there {}, now {})", key, shown(then, now), shown(now, then)));
  };
  for (const auto& [key, value] : configuration) {
    const Json* found = there.value().find(key);
    const JsonDocument now = parse_json(to_json(value), key);
    if (found == nullptr) {
      note(key, "absent", to_json(value));
    } else if (!same_json(*found, now.root)) {
      note(key, to_json(to_value(there.at(key))), to_json(value));
    }
  }
  for (const std::string& key : there.as_object().keys) {
    const bool known = std::any_of(configuration.begin(), configuration.end(),
                                   [&key](const auto& field) { return field.first == key; });
    if (!known) note(key, "present", "absent");
  }
  if (changed.empty()) return;
  fail({.kind = ErrorClass::resume,
        .file = folder,
        .found = "results of another configuration: " + fmt::format("{}", fmt::join(changed, "; ")),
        .expected = "the configuration of this command",
        .fix = "Give another --out"});
}

}  // namespace cli
