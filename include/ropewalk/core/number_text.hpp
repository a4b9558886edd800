// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Numbers as text and back, without locale: shortest round-trip form, strict parsing.

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Shortest decimal text that reads back as the same bits; integers below 1e15 without exponent:
/// 500000, 0.1, 1e+22.
inline std::string number_text(double value) {
  if (value > -1e15 && value < 1e15) {
    const auto integer = static_cast<std::int64_t>(value);
    if (static_cast<double>(integer) == value && integer != 0) return std::to_string(integer);
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, end.ptr);
}
inline std::string number_text(std::int64_t value) { return std::to_string(value); }

/// The whole of `text` as a finite decimal number; nothing for "", " 1", "1x", "nan", "inf",
/// "1e400" and the like.
inline std::optional<double> parse_real(std::string_view text) {
  double value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size()) return std::nullopt;
  if (!(value - value == 0)) return std::nullopt;  // nan or inf, spelled out
  return value;
}

/// The whole of `text` as a decimal integer that fits 64 bits.
inline std::optional<std::int64_t> parse_integer(std::string_view text) {
  const bool negative = !text.empty() && text.front() == '-';
  if (negative) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  std::int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    const std::int64_t digit = negative ? '0' - c : c - '0';
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value)) {
      return std::nullopt;
    }
  }
  return value;
}

/// As parse_integer, with an optional binary suffix: 4K = 4096, 32k, 1M, 2G. Lengths and sizes.
inline std::optional<std::int64_t> parse_size(std::string_view text) {
  int shift = 0;
  if (!text.empty()) {
    switch (text.back()) {
      case 'k':
      case 'K':
        shift = 10;
        break;
      case 'm':
      case 'M':
        shift = 20;
        break;
      case 'g':
      case 'G':
        shift = 30;
        break;
      default:
        break;
    }
  }
  if (shift != 0) text.remove_suffix(1);
  const std::optional<std::int64_t> value = parse_integer(text);
  std::int64_t scaled = 0;
  if (!value || __builtin_mul_overflow(*value, std::int64_t{1} << shift, &scaled)) {
    return std::nullopt;
  }
  return scaled;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
