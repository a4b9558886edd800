// SPDX-License-Identifier: Apache-2.0
#include "results_folder.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <sys/stat.h>

#include "ropewalk/io/json.hpp"
#include "ropewalk/io/json_write.hpp"

namespace cli {

namespace {

bool has_content(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && s.st_size > 0;
}

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

Value to_value(const JsonView& v) {
  const Json& json = v.value();
  if (json.is_null()) return {};
  if (const bool* b = json.if_bool()) return *b;
  if (const std::string* s = json.if_string()) return *s;
  if (const JsonNumber* n = json.if_number()) {
    if (n->form == JsonNumber::Form::real || n->form == JsonNumber::Form::huge) return n->real;
    if (n->form == JsonNumber::Form::natural && (n->natural >> 63) != 0) return n->natural;
    return v.as_integer();
  }
  v.refuse("a number, a string, true, false or null", {}, ErrorClass::state);
}

/// Runs `read`; what is wrong with our own files is a damaged folder, not a bad input.
template <class Read>
void as_state(Read&& read) {
  try {
    read();
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    if (exit_code(info.kind) != exit_code(ErrorClass::format)) throw;
    info.kind = ErrorClass::state;
    if (info.fix.empty()) info.fix = "Give another --out";
    fail(std::move(info));
  }
}

/// A field for messages; long lists are cut.
std::string shown(const std::string& json) {
  return json.size() <= 100 ? json : json.substr(0, 100) + "...";
}

}  // namespace

ResultsFolder::ResultsFolder(std::string path, const Row& configuration, const Row& environment)
    : path_(std::move(path)) {
  const std::string manifest = path_ + "/manifest.json";
  const std::string results = path_ + "/results.jsonl";
  const std::string config_hash = configuration_hash(configuration);
  const auto compare = [&] { as_state([&] { compare_manifest(configuration); }); };
  if (file_exists(manifest)) compare();  // refuses without touching anything
  // An empty log without manifest is what a process leaves that was killed right at its start.
  if (!file_exists(manifest) && has_content(results)) {
    fail({.kind = ErrorClass::state,
          .file = path_,
          .found = "results.jsonl without manifest.json",
          .expected = "both or neither",
          .fix = "Give another --out"});
  }
  create_folders(path_);
  log_.emplace(results);
  if (file_exists(manifest)) {
    compare();
  } else {
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
    write_file(manifest, text + "\n  }\n}\n");
  }
  as_state([&] { read_rows(config_hash); });
}

void ResultsFolder::compare_manifest(const Row& configuration) const {
  const FileSource source(path_ + "/manifest.json");
  const JsonDocument document = read_json(source);
  const JsonView there = document.view().at("configuration");
  std::vector<std::string> changed;
  const auto note = [&changed](const std::string& key, const std::string& then,
                               const std::string& now) {
    changed.push_back(fmt::format("{} (there {}, now {})", key, shown(then), shown(now)));
  };
  for (const auto& [key, value] : configuration) {
    const Json* found = there.value().find(key);
    const JsonDocument now = parse_json(to_json(value), key);
    if (found == nullptr) {
      note(key, "absent", to_json(value));
    } else if (!same_json(*found, now.root)) {
      std::string then;
      if (found->if_array() != nullptr) {
        for (const JsonView& item : there.at(key).elements()) {
          then += (then.empty() ? "[" : ",") + to_json(to_value(item));
        }
        then += "]";
      } else {
        then = to_json(to_value(there.at(key)));
      }
      note(key, then, to_json(value));
    }
  }
  for (const std::string& key : there.as_object().keys) {
    const bool known = std::any_of(configuration.begin(), configuration.end(),
                                   [&key](const auto& field) { return field.first == key; });
    if (!known) note(key, "present", "absent");
  }
  if (changed.empty()) return;
  fail({.kind = ErrorClass::resume,
        .file = path_,
        .found = "results of another configuration: " + fmt::format("{}", fmt::join(changed, "; ")),
        .expected = "the configuration of this command",
        .fix = "Give another --out"});
}

void ResultsFolder::read_rows(const std::string& config_hash) {
  std::size_t line = 0;
  for (const std::string& record : log_->records()) {
    const JsonDocument document = parse_json(record, log_->path());
    const JsonView view = document.view();
    const auto refuse = [&](std::string found, std::string expected) {
      fail({.kind = ErrorClass::state,
            .file = log_->path(),
            .where = "line " + std::to_string(line),
            .found = std::move(found),
            .expected = std::move(expected),
            .fix = "Give another --out"});
    };
    ++line;
    if (view.at("config_hash").as_string() != config_hash) {
      refuse("a row of another configuration", "rows of " + config_hash);
    }
    CellRow cell;
    bool in_origin = false;
    for (const std::string& key : view.as_object().keys) {
      in_origin = in_origin || key == "schema";  // the first field of the origin
      (in_origin ? cell.origin : cell.results).emplace_back(key, to_value(view.at(key)));
    }
    const auto where = std::pair(view.at("rope_arg").as_string(), view.at("length").as_integer());
    const auto [it, added] = known_.emplace(where, cell);
    if (!added && to_json(it->second.results) != to_json(cell.results)) {
      refuse("another result for " + where.first + " at length " + std::to_string(where.second),
             "the one of an earlier line");
    }
  }
}

}  // namespace cli
