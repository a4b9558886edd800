// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What an encoding of a text remembers on its way: the tokens of short strings.

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "ropewalk/text/bpe_merging.hpp"
#include "ropewalk/text/bpe_tables.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Memory of one thread that encodes with one BpeModel. What it forgets is worked out again.
class BpeCache {
 public:
  /// Tokens of a string.
  struct Entry {
    static constexpr std::size_t max_bytes = 24, max_tokens = 7;
    TokenId ids[max_tokens] = {};
    char text[max_bytes] = {};
    std::uint8_t ends[max_tokens] = {};
    std::uint8_t size = 0;
    std::uint8_t count = 0;

    bool holds(std::string_view s) const {
      return size == s.size() && std::memcmp(text, s.data(), s.size()) == 0;
    }
    /// Remembers the tokens if there is room for them.
    void set(std::string_view s, const std::vector<BpeSymbol>& symbols, std::size_t first,
             std::size_t base) {
      if (symbols.size() - first > max_tokens) return;
      std::memcpy(text, s.data(), s.size());
      size = static_cast<std::uint8_t>(s.size());
      count = static_cast<std::uint8_t>(symbols.size() - first);
      for (std::size_t i = 0; i < count; ++i) {
        ids[i] = symbols[first + i].id;
        ends[i] = static_cast<std::uint8_t>(symbols[first + i].end - base);
      }
    }
  };

  /// For a text of this size, or several such texts.
  explicit BpeCache(std::size_t bytes) {
    std::size_t slots = 16;
    while (slots < 16384 && slots * 32 < bytes) slots *= 2;
    entries_.resize(slots);
  }

  /// Where the tokens of a string of 1 to max_bytes bytes are, if holds(), or may be put.
  Entry& entry(std::string_view s) {
    return entries_[detail::short_hash(s) & (entries_.size() - 1)];
  }
  std::vector<BpeSymbol> tokens = {};  ///< of the part of the text that is being encoded

 private:
  std::vector<Entry> entries_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
