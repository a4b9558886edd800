// SPDX-License-Identifier: Apache-2.0
#include "results_folder.hpp"

#include <algorithm>
#include <filesystem>

#include <sys/stat.h>

#include "ropewalk/io/json.hpp"

#include "manifest.hpp"

namespace cli {

namespace {

bool has_content(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && s.st_size > 0;
}

/// Rows of a log's records, in file order.
class RowReader {
 public:
  RowReader(std::string file, std::string config_hash)
      : file_(std::move(file)), config_hash_(std::move(config_hash)) {}

  void add(const std::string& record) {
    ++line_;
    const JsonDocument document = parse_json(record, file_);
    const JsonView view = document.view();
    if (view.at("config_hash").as_string() != config_hash_) {
      refuse("a row of another configuration", "rows of " + config_hash_);
    }
    CellRow cell;
    bool in_origin = false;
    for (const std::string& key : view.as_object().keys) {
      in_origin = in_origin || key == "schema";  // the first field of the origin
      (in_origin ? cell.origin : cell.results).emplace_back(key, to_value(view.at(key)));
    }
    const CellKey key{view.at("rope_arg").as_string(), view.at("protocol").as_string(),
                      view.at("length").as_integer()};
    const auto [it, added] = cells.emplace(key, cell);
    if (!added && to_json(it->second.results) != to_json(cell.results)) {
      refuse("another result for " + key.rope_arg + " at length " + std::to_string(key.length),
             "the one of an earlier line");
    }
  }
  [[noreturn]] void refuse(std::string found, std::string expected) const {
    fail({.kind = ErrorClass::state,
          .file = file_,
          .where = "line " + std::to_string(line_),
          .found = std::move(found),
          .expected = std::move(expected),
          .fix = "Give another --out"});
  }
  void refuse_next(std::string found, std::string expected) {
    ++line_;
    refuse(std::move(found), std::move(expected));
  }

  KnownCells cells = {};

 private:
  std::string file_;
  std::string config_hash_;
  std::size_t line_ = 0;
};

}  // namespace

StoredResults read_results(const std::string& path) {
  StoredResults out;
  const std::string name = path + "/results.jsonl";
  if (!file_exists(path + "/manifest.json")) {
    fail({.kind = ErrorClass::io,
          .file = path,
          .found = is_directory(path) ? "a folder without manifest.json" : "no such folder",
          .expected = "the results folder of a sweep",
          .fix = "Give the folder that sweep names at its end"});
  }
  as_state([&] {
    const FileSource manifest(path + "/manifest.json");
    const JsonDocument document = read_json(manifest);
    out.config_hash = document.view().at("config_hash").as_string();
    const JsonView configuration = document.view().at("configuration");
    for (const JsonView& arg : configuration.at("rope_arg").elements()) {
      for (const JsonView& protocol : configuration.at("protocol").elements()) {
        for (const JsonView& length : configuration.at("lengths").elements()) {
          out.cells.push_back({arg.as_string(), protocol.as_string(), length.as_integer()});
        }
      }
    }
    RowReader rows(name, out.config_hash);
    const std::string text =
        file_exists(name) ? read_text(FileSource(name), std::uint64_t{1} << 30) : std::string();
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const auto record = unseal_record(std::string_view(text).substr(begin, end - begin));
      if (record) {
        rows.add(*record);
      } else if (end + 1 >= text.size()) {
        out.torn_bytes = text.size() - begin;
      } else {
        rows.refuse_next("a record whose checksum is wrong", "whole records before the last line");
      }
      begin = end + 1;
    }
    out.known = std::move(rows.cells);
  });
  return out;
}

ResultsFolder::ResultsFolder(std::string path, const Row& configuration, const Row& environment)
    : path_(std::move(path)) {
  const std::string manifest = path_ + "/manifest.json";
  const std::string results = path_ + "/results.jsonl";
  const std::string config_hash = configuration_hash(configuration);
  const auto compare = [&] { as_state([&] { compare_manifest(path_, configuration); }); };
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
    write_manifest(path_, config_hash, configuration, environment);
  }
  as_state([&] {
    RowReader rows(log_->path(), config_hash);
    for (const std::string& record : log_->records()) rows.add(record);
    known_ = std::move(rows.cells);
  });
}

void ResultsFolder::remove_losses() const {
  std::error_code ignored;  // what stays costs disk space alone
  for (const auto& entry : std::filesystem::directory_iterator(path_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("losses-") && name.ends_with(".bin")) {
      std::filesystem::remove(entry.path(), ignored);
    }
  }
}

}  // namespace cli
