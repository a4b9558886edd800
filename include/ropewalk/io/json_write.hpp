// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// JSON output: strings and numbers as result rows need them.

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "ropewalk/io/utf8.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD, so the result
/// is always valid JSON.
inline std::string json_escape(std::string_view text) {
  constexpr char hex[] = "0123456789abcdef";
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
      ++at;
    } else if (c == '\n') {
      out += "\\n";
      ++at;
    } else if (c == '\t') {
      out += "\\t";
      ++at;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == '\x7f') {
      out += "\\u00";
      out += hex[(c >> 4) & 15];
      out += hex[c & 15];
      ++at;
    } else {
      const std::size_t n = utf8_length(text, at);
      if (n == 0) {
        out += "\xef\xbf\xbd";
        ++at;
      } else {
        out += text.substr(at, n);
        at += n;
      }
    }
  }
  return out + "\"";
}

/// 17 significant digits, so that equal bits give equal text and reading it back is exact; `null`
/// for NaN and infinity, which JSON cannot say. Independent of the locale.
inline std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::general, 17);
  return {buffer, end.ptr};
}

template <std::integral T>
requires(!std::same_as<T, bool>) std::string json_number(T value) { return std::to_string(value); }

}  // namespace ropewalk::inline ROPEWALK_ABI
