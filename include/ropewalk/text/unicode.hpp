// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Characters of valid UTF-8 and their classes.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <utf8proc.h>

#include "ropewalk/io/utf8.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The code point of the valid sequence of `size` bytes (utf8_length) at text[at].
constexpr std::uint32_t code_point(std::string_view text, std::size_t at, std::size_t size) {
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i]));
  };
  if (size == 1) return byte(0);
  std::uint32_t value = byte(0) & (0x7fu >> size);
  for (std::size_t i = 1; i < size; ++i) value = value << 6 | (byte(i) & 0x3fu);
  return value;
}

/// Appends a code point up to U+10FFFF as UTF-8.
inline void append_utf8(std::string& out, std::uint32_t c) {
  const auto push = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xc0 | c >> 6), push(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    push(0xe0 | c >> 12), push(0x80 | (c >> 6 & 0x3f)), push(0x80 | (c & 0x3f));
  } else {
    push(0xf0 | c >> 18), push(0x80 | (c >> 12 & 0x3f)), push(0x80 | (c >> 6 & 0x3f));
    push(0x80 | (c & 0x3f));
  }
}

/// Offset of the first byte at or after `at` that is not ASCII, or text.size().
inline std::size_t skip_ascii(std::string_view text, std::size_t at) {
  for (; at + 8 <= text.size(); at += 8) {
    std::uint64_t word = 0;
    __builtin_memcpy(&word, text.data() + at, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

/// find_invalid_utf8 from `at` on, fast where the text is ASCII; text.size() if all is valid.
inline std::size_t valid_utf8_end(std::string_view text, std::size_t at) {
  for (;;) {
    at = skip_ascii(text, at);
    if (at == text.size()) return at;
    const std::size_t size = utf8_length(text, at);
    if (size == 0) return at;
    at += size;
  }
}

/// Calls run(begin, end, valid) for the maximal parts of `text` that are UTF-8 and that are not, in
/// order.
template <class Run>
void for_each_utf8_run(std::string_view text, Run&& run) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = valid_utf8_end(text, at);
    if (end > at) run(at, end, true);
    at = end;
    while (end < text.size() && utf8_length(text, end) == 0) ++end;
    if (end > at) run(at, end, false);
    at = end;
  }
}

/// The property White_Space of Unicode: what `\s` means in patterns of tokenizers.
constexpr bool is_white_space(std::uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

namespace detail {

inline utf8proc_category_t category(std::uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace detail

/// Categories Nd, Nl and No.
inline bool is_numeric(std::uint32_t c) {
  const utf8proc_category_t k = detail::category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

/// Categories P*, and the ASCII symbols ($+<=>^`|~).
inline bool is_punctuation(std::uint32_t c) {
  if (c < 0x80) {
    return (c >= 0x21 && c <= 0x2f) || (c >= 0x3a && c <= 0x40) || (c >= 0x5b && c <= 0x60) ||
           (c >= 0x7b && c <= 0x7e);
  }
  const utf8proc_category_t k = detail::category(c);
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

/// Letters, marks, decimal digits, connector punctuation: what `\w` means.
inline bool is_word_character(std::uint32_t c) {
  const utf8proc_category_t k = detail::category(c);
  return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ND) || k == UTF8PROC_CATEGORY_PC;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
