// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Lines and rows of what the executable prints, and inputs of sweeps.

#include <algorithm>
#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

#include "ropewalk/core/number_text.hpp"
#include "ropewalk/io/json.hpp"

#include "cli/program.hpp"

namespace ropewalk {

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

inline std::vector<JsonDocument> rows_of(const std::string& text) {
  std::vector<JsonDocument> rows;
  for (const std::string& line : lines_of(text)) rows.push_back(parse_json(line, "row"));
  return rows;
}

/// Rows of a training run without what differs from run to run.
inline std::vector<std::string> learnt(const std::string& out) {
  std::vector<std::string> rows;
  for (const JsonDocument& row : rows_of(out)) {
    std::string text;
    for (const std::string& key : row.view().as_object().keys) {
      if (key == "tok_s" || key == "share_of_limit") continue;
      const JsonView value = row.view().at(key);
      text += key + "=" + (value.is_null() ? "null" : number_text(value.as_number())) + " ";
    }
    rows.push_back(text);
  }
  return rows;
}

/// Waits until `ready()`; false after half a minute.
template <class Ready>
bool wait_until(Ready&& ready) {
  for (int i = 0; i < 30000; ++i) {
    if (ready()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

/// Waits until a file has some lines; false after half a minute.
inline bool wait_for_lines(const std::string& path, std::size_t lines) {
  return wait_until([&] { return lines_of(file_content(path)).size() >= lines; });
}

/// A folder with a small model and ids.
struct Inputs {
  TempDir folder;
  explicit Inputs(int ids = 400) {
    folder.write("model.bin", tiny_checkpoint());
    folder.write("ids.u16", tiny_tokens(ids));
  }
  std::vector<std::string> command(const std::string& name,
                                   const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {name, "--model", "model.bin", "--tokens", "ids.u16"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::vector<std::string> sweep(const std::vector<std::string>& more) const {
    return command("sweep", more);
  }
  Outcome run(const std::vector<std::string>& more) const {
    return run_program(folder, sweep(more));
  }
  /// The same with a limit that the run inherits (RLIMIT_FSIZE, RLIMIT_AS).
  Outcome run_limited(int resource, rlim_t limit, const std::vector<std::string>& more) const {
    struct rlimit before {};
    ::getrlimit(static_cast<__rlimit_resource>(resource), &before);
    struct rlimit lowered = before;
    lowered.rlim_cur = limit;
    ::setrlimit(static_cast<__rlimit_resource>(resource), &lowered);
    Program program(folder, sweep(more));
    ::setrlimit(static_cast<__rlimit_resource>(resource), &before);
    return program.wait();
  }
};

}  // namespace ropewalk
