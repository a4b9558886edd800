// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What this executable was built from: for --version and result rows.

#include <string>

#include "ropewalk/core/config.hpp"

#if __has_include("build_info.hpp")
#include "build_info.hpp"  // written by CMake at every build
#else
namespace ropewalk_build {
inline constexpr const char* git_revision = "unknown";
inline constexpr const char* compiler = __VERSION__;
inline constexpr const char* build_type = "";
inline constexpr const char* flags = "";
}  // namespace ropewalk_build
#endif

namespace cli {

/// "0.1.0"
inline std::string version_text() {
  using namespace ropewalk;
  return std::to_string(version_major) + "." + std::to_string(version_minor) + "." +
         std::to_string(version_patch);
}

}  // namespace cli
