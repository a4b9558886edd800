// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// manifest.json of a folder of results: of what configuration they are.

#include <string>

#include "ropewalk/core/error.hpp"
#include "ropewalk/io/json.hpp"

#include "output.hpp"

namespace cli {

using namespace ropewalk;

/// The folder and those that it is in, where they are not there. \throws Error(io | resource)
void create_folders(const std::string& path);

/// A number, string, truth value or list of a file as a value of a row.
Value to_value(const JsonView& v);

/// Writes FOLDER/manifest.json. `environment`: fields that are not compared.
void write_manifest(const std::string& folder, const std::string& config_hash,
                    const Row& configuration, const Row& environment);

/// \throws Error(resume) when the folder is of another configuration, naming every changed field
void compare_manifest(const std::string& folder, const Row& configuration);

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

}  // namespace cli
