// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Words of a text as word perplexities count them.

#include <cstdint>
#include <string_view>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Bytes of the white-space character that starts `text`, 0 if none does: the code points that
/// Python's `\s` matches in a str. Text is UTF-8.
constexpr std::size_t leading_white_space(std::string_view text) {
  const auto byte = [text](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned a = byte(0), b = byte(1), c = byte(2);
  if (a == 0x20 || (a >= 0x09 && a <= 0x0D) || (a >= 0x1C && a <= 0x1F)) return 1;
  if (a == 0xC2 && (b == 0x85 || b == 0xA0)) return 2;             // U+0085, U+00A0
  if (a == 0xE1 && b == 0x9A && c == 0x80) return 3;               // U+1680
  if (a == 0xE2 && b == 0x80 && c >= 0x80 && c <= 0x8A) return 3;  // U+2000 .. U+200A
  if (a == 0xE2 && b == 0x80 && (c == 0xA8 || c == 0xA9 || c == 0xAF)) return 3;
  if (a == 0xE2 && b == 0x81 && c == 0x9F) return 3;  // U+205F
  if (a == 0xE3 && b == 0x80 && c == 0x80) return 3;  // U+3000
  return 0;
}

/// `len(re.split(r"\s+", text))`, the words of lm-evaluation-harness' word perplexity: runs of
/// white space plus one. White space at an end counts as one more (empty) word, as it does there.
constexpr std::int64_t count_words(std::string_view text) {
  std::int64_t runs = 0;
  for (bool in_run = false; !text.empty();) {
    const std::size_t space = leading_white_space(text);
    if (space != 0 && !in_run) ++runs;
    in_run = space != 0;
    text.remove_prefix(space != 0 ? space : 1);
  }
  return runs + 1;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
