// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Finds the data that is kept beside the project, for tests that need real models.

#include <optional>
#include <string>
#include <string_view>

#include <sys/stat.h>

/// Path of a file of the data folder, or nothing when it is not there: then the test says so with
/// MESSAGE("skipped: ...") and returns.
inline std::optional<std::string> shared_data([[maybe_unused]] std::string_view relative) {
#ifdef ROPEWALK_SHARED_DATA
  std::string path = std::string(ROPEWALK_SHARED_DATA) + "/" + std::string(relative);
  struct stat s {};
  if (::stat(path.c_str(), &s) == 0) return path;
#endif
  return std::nullopt;
}
