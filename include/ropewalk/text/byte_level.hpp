// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The spelling of bytes as visible characters in byte-level vocabularies, and patterns that such
/// vocabularies were trained with.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ropewalk/text/unicode.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// The byte that each of the characters up to U+0143 stands for, or -1: 0x21 to 0x7E, 0xA1 to 0xAC
/// and 0xAE to 0xFF are themselves, the other 68 bytes follow from U+0100 on.
constexpr std::array<std::int16_t, 0x144> bytes_of_characters() {
  std::array<std::int16_t, 0x144> table{};
  table.fill(-1);
  std::size_t next = 0x100;
  for (std::size_t b = 0; b < 256; ++b) {
    const bool visible =
        (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
    table[visible ? b : next++] = static_cast<std::int16_t>(b);
  }
  return table;
}

}  // namespace detail

/// The bytes that a name in a byte-level vocabulary stands for; nothing if a character of it stands
/// for no byte. Source: openai/gpt-2, encoder.py (bytes_to_unicode).
inline std::optional<std::string> bytes_of_name(std::string_view name) {
  static constexpr auto table = detail::bytes_of_characters();
  std::string out;
  for (std::size_t at = 0; at < name.size();) {
    const std::size_t size = utf8_length(name, at);
    const std::uint32_t c = size == 0 ? 0xffffffffu : code_point(name, at, size);
    if (c >= table.size() || table[c] < 0) return std::nullopt;
    out += static_cast<char>(table[c]);
    at += size;
  }
  return out;
}

/// How a byte-level vocabulary cuts text into words, for files that do not say.
struct WordPattern {
  std::string_view name = {};
  std::string_view regex = {};
  bool nfc = false;          ///< text is brought to NFC first
  bool whole_words = false;  ///< a word that is a piece needs no merges
};

inline constexpr WordPattern word_patterns[] = {
    {"gpt2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", false,
     false},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     true, false},
    {"llama3",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, true},
};

/// One of word_patterns by its name; else the text is the pattern itself, without normalisation.
constexpr WordPattern find_word_pattern(std::string_view name_or_regex) {
  for (const WordPattern& p : word_patterns) {
    if (p.name == name_or_regex) return p;
  }
  return {.name = {}, .regex = name_or_regex};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
