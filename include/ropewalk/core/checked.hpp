// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Checked integer arithmetic: the only way in which numbers from files are added or multiplied.

#include <concepts>
#include <limits>
#include <string>
#include <utility>

#include "ropewalk/core/error.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// a + b. \throws Error(limit) naming `what` when the sum does not fit T.
template <std::integral T>
constexpr T checked_add(T a, T b, const char* what) {
  T r{};
  if (__builtin_add_overflow(a, b, &r)) {
    fail({.kind = ErrorClass::limit,
          .field = what,
          .found = std::to_string(a) + " + " + std::to_string(b),
          .expected = "a sum that fits the address space"});
  }
  return r;
}

/// a * b. \throws Error(limit) naming `what` when the product does not fit T.
template <std::integral T>
constexpr T checked_mul(T a, T b, const char* what) {
  T r{};
  if (__builtin_mul_overflow(a, b, &r)) {
    fail({.kind = ErrorClass::limit,
          .field = what,
          .found = std::to_string(a) + " * " + std::to_string(b),
          .expected = "a product that fits the address space"});
  }
  return r;
}

/// Value-preserving conversion. \throws Error(limit) naming `what` when `value` does not fit To.
template <std::integral To, std::integral From>
constexpr To checked_cast(From value, const char* what) {
  if (!std::in_range<To>(value)) {
    fail({.kind = ErrorClass::limit,
          .field = what,
          .found = std::to_string(value),
          .expected = "a value of at most " + std::to_string(std::numeric_limits<To>::max())});
  }
  return static_cast<To>(value);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
