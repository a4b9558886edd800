// SPDX-License-Identifier: Apache-2.0
/// \file
/// Who wants to read files alone needs neither tokenizers nor kernels.

#include <cstdio>

#include <ropewalk/io/json.hpp>

#if defined(XSIMD_HPP) || defined(EIGEN_CORE_H) || defined(PCRE2_MAJOR) || \
    defined(UTF8PROC_VERSION_MAJOR)
#error "the component io includes more than it should"
#endif

bool reads_bytes();  // second_unit.cpp

int main() {
  const auto document = ropewalk::parse_json(R"({"rope_theta": 10000})", "config.json");
  try {
    ropewalk::parse_json(R"({"rope_theta": 1, "rope_theta": 2})", "config.json");
  } catch (const ropewalk::Error&) {
    return reads_bytes() && document.file == "config.json" ? 0 : 1;
  }
  std::puts("a key that stands twice was accepted");
  return 1;
}
