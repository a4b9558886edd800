// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Names of files that a file may refer to: plain names in the same folder.

#include <string>
#include <string_view>

#include "ropewalk/core/error.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Accepts a plain file name: no folders, no "." or "..", no NUL, at most 255 bytes. What it names
/// may be a symbolic link, as in the Hugging Face cache. `file` and `where` say who refers to it.
/// \throws Error(path)
inline void check_file_name(std::string_view name, const std::string& file,
                            const std::string& where) {
  const bool dots = name == "." || name == ".." || name.find("..") == 0;
  const bool folder = name.find_first_of("/\\:") != std::string_view::npos;
  const bool nul = name.find('\0') != std::string_view::npos;
  if (!name.empty() && name.size() <= 255 && !dots && !folder && !nul) return;
  fail({.kind = ErrorClass::path,
        .file = file,
        .where = where,
        .found = escaped(name),
        .expected = "the name of a file in the same folder",
        .fix = folder && !dots ? "Put all files into one folder" : ""});
}

/// folder + "/" + name
inline std::string join_path(const std::string& folder, std::string_view name) {
  return folder + (folder.empty() || folder.back() == '/' ? "" : "/") + std::string(name);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
