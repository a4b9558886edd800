// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What the two translation units report: where they believe the library's entities to be.

#include <string>
#include <string_view>

#include "ropewalk/core/config.hpp"
#include "ropewalk/core/hash.hpp"

struct Addresses {
  const void* variable = nullptr;
  std::string (*function)(std::uint64_t) = nullptr;
};

inline Addresses addresses() {
  return {.variable = &ropewalk::version_major, .function = &ropewalk::hash_text};
}

Addresses two_units_first();
Addresses two_units_second();
