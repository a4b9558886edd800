// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// UTF-8: where one character ends.

#include <cstddef>
#include <string_view>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Bytes of the valid UTF-8 sequence that starts at text[at], at < text.size(); 0 if there is none
/// (stray or missing continuation, overlong form, surrogate, beyond U+10FFFF).
/// Source: Unicode 15, table 3-7.
constexpr std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [text, at](std::size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto continues = [&byte](std::size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return continues(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    const unsigned low = lead == 0xe0 ? 0xa0 : 0x80, high = lead == 0xed ? 0x9f : 0xbf;
    return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const unsigned low = lead == 0xf0 ? 0x90 : 0x80, high = lead == 0xf4 ? 0x8f : 0xbf;
    return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

/// Offset of the first byte that is not valid UTF-8, or npos.
constexpr std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = utf8_length(text, at);
    if (n == 0) return at;
    at += n;
  }
  return std::string_view::npos;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
