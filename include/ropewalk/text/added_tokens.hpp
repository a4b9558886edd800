// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Added tokens: strings that are found in a text before anything else is done with it.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/text/bpe_tables.hpp"
#include "ropewalk/text/unicode.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// An entry of `added_tokens` in a tokenizer.json.
struct AddedToken {
  TokenId id = 0;
  std::string content = {};
  bool single_word = false;  ///< not inside of a word
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< takes the white space behind it
  bool normalized = false;   ///< looked for in the normalised text
  bool special = false;      ///< controls the model
};

/// What the spelling of a special token in a text becomes.
enum class SpecialTokens {
  as_text,  ///< text like any other: ids that control the model never come out of text
  as_ids,   ///< the token's id, as Hugging Face's tokenizers do by default
};

/// Finds strings in a text, the longest of the leftmost.
class StringMatcher {
 public:
  struct Match {
    std::size_t begin = 0, end = 0;
    std::int32_t index = -1;  ///< of the string; -1: no more matches
  };
  /// Adds a string that is not empty. False when it is there already.
  bool add(std::string_view text, std::int32_t index) {
    std::int32_t node = 0;
    for (const char c : text) {
      std::int32_t next = edges_.find(key(node, c));
      if (next < 0) {
        next = static_cast<std::int32_t>(ends_.size());
        ends_.push_back(-1);
        edges_.add(key(node, c), next);
      }
      node = next;
    }
    std::int32_t& end = ends_[static_cast<std::size_t>(node)];
    if (end >= 0) return false;
    end = index;
    if (starts_.empty()) starts_.assign(1 << 16, false);
    const unsigned first = static_cast<unsigned char>(text[0]) * 256u;
    if (text.size() > 1) {
      starts_[first + static_cast<unsigned char>(text[1])] = true;
    } else {
      std::fill_n(starts_.begin() + first, 256, true);
    }
    return true;
  }
  bool empty() const { return starts_.empty(); }
  /// **Cost:** the bytes passed, times the longest string where texts resemble it.
  Match find(std::string_view text, std::size_t from) const {
    if (empty()) return {};
    for (std::size_t at = from; at < text.size(); ++at) {
      const unsigned first = static_cast<unsigned char>(text[at]) * 256u;
      const unsigned second = at + 1 < text.size() ? static_cast<unsigned char>(text[at + 1]) : 0u;
      if (!starts_[first + second]) continue;
      Match found;
      std::int32_t node = 0;
      for (std::size_t i = at; i < text.size(); ++i) {
        node = edges_.find(key(node, text[i]));
        if (node < 0) break;
        if (ends_[static_cast<std::size_t>(node)] >= 0) {
          found = {at, i + 1, ends_[static_cast<std::size_t>(node)]};
        }
      }
      if (found.index >= 0) return found;
    }
    return {};
  }

 private:
  static std::uint64_t key(std::int32_t node, char c) {
    return std::uint64_t{static_cast<std::uint32_t>(node)} << 8 | static_cast<unsigned char>(c);
  }
  NumberTable edges_;
  std::vector<std::int32_t> ends_ = {-1};  // by node: the string that ends there
  std::vector<bool> starts_;               // by the first two bytes
};

/// The added tokens that are looked for in one form of a text.
class AddedTokens {
 public:
  /// `pattern` is what the text holds: the content, or what normalisation makes of it. Of equal
  /// patterns the first counts.
  void add(const AddedToken& token, std::string_view pattern) {
    if (pattern.empty()) return;
    if (!matcher_.add(pattern, static_cast<std::int32_t>(tokens_.size()))) return;
    tokens_.push_back(token);
    only_special_ = only_special_ && token.special;
  }

  /// Calls text(begin, end) and token(const AddedToken&, begin, end), in order.
  template <class Text, class Token>
  void split(std::string_view in, SpecialTokens special, Text&& text, Token&& token) const {
    std::size_t done = 0;
    if (!tokens_.empty() && !(only_special_ && special == SpecialTokens::as_text)) {
      for (std::size_t at = 0;;) {
        const StringMatcher::Match m = matcher_.find(in, at);
        if (m.index < 0) break;
        at = m.end;
        const AddedToken& t = tokens_[static_cast<std::size_t>(m.index)];
        if (t.special && special == SpecialTokens::as_text) continue;
        if (t.single_word &&
            (ends_with_word(in.substr(0, m.begin)) || starts_with_word(in.substr(m.end)))) {
          continue;
        }
        std::size_t begin = std::max(m.begin, done), end = m.end;
        if (t.lstrip) begin = std::max(done, begin - white_space_at_end(in.substr(0, begin)));
        if (t.rstrip) end += white_space_at_start(in.substr(end));
        if (begin >= end) continue;  // inside of the white space that another one took
        if (done < begin) text(done, begin);
        token(t, begin, end);
        done = end;
      }
    }
    if (done < in.size()) text(done, in.size());
  }

 private:
  static bool starts_with_word(std::string_view text) {
    if (text.empty()) return false;
    const std::size_t size = utf8_length(text, 0);
    return size != 0 && is_word_character(code_point(text, 0, size));
  }
  /// Start of the last character.
  static std::size_t last_character(std::string_view text) {
    std::size_t at = text.size() - 1;
    while (at > 0 && text.size() - at < 4 &&
           (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) {
      --at;
    }
    return at;
  }
  static bool ends_with_word(std::string_view text) {
    return !text.empty() && starts_with_word(text.substr(last_character(text)));
  }
  static std::size_t white_space_at_start(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
      const std::size_t size = utf8_length(text, at);
      if (size == 0 || !is_white_space(code_point(text, at, size))) break;
      at += size;
    }
    return at;
  }
  static std::size_t white_space_at_end(std::string_view text) {
    std::size_t end = text.size();
    while (end > 0) {
      const std::size_t at = last_character(text.substr(0, end));
      const std::size_t size = utf8_length(text, at);
      if (size != end - at || !is_white_space(code_point(text, at, size))) break;
      end = at;
    }
    return text.size() - end;
  }

  std::vector<AddedToken> tokens_;
  StringMatcher matcher_;
  bool only_special_ = true;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
