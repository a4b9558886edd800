// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Byte-pair encoding of one word by a list of merges: of all adjacent pairs that may merge, the
/// one of lowest rank does, the leftmost among equals, until none is left.

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/core/error.hpp"
#include "ropewalk/text/bpe_cache.hpp"
#include "ropewalk/text/bpe_merging.hpp"
#include "ropewalk/text/bpe_tables.hpp"
#include "ropewalk/text/unicode.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A vocabulary and its merges, checked by whoever fills it: ids of merges are below pieces.size(),
/// and the result of a merge is the union of its parts.
struct BpeVocabulary {
  std::string name = {};                 ///< of the file, for messages
  std::vector<std::string> pieces = {};  ///< by id; empty: no piece of text
  std::vector<BpeMerge> merges = {};
  bool byte_units = false;              ///< words begin as bytes, not as characters
  std::vector<TokenId> fallback = {};   ///< 256 ids for the bytes of unknown characters, or none
  std::optional<TokenId> unknown = {};  ///< for unknown characters without fallback
  bool fuse_unknown = false;            ///< one id for unknown characters side by side
  bool whole_words = false;             ///< a word that is a piece needs no merges
  std::vector<TokenId> never = {};      ///< ids that text must not become, by merges or else
};

/// \throws Error(limit) for a text that is too long for the tables of tokens' ends.
inline void check_text_size(std::size_t size) {
  if (size < 0xffffffffu) return;
  fail({.kind = ErrorClass::limit,
        .field = "text",
        .found = std::to_string(size) + " bytes",
        .expected = "less than 4294967295",
        .fix = "Cut the text into documents"});
}

class BpeModel {
 public:
  BpeModel() : BpeModel(BpeVocabulary()) {}
  explicit BpeModel(BpeVocabulary v) : v_(std::move(v)), pairs_(v_.merges.size()) {
    std::vector<bool> barred(v_.pieces.size(), false);
    for (const TokenId id : v_.never) {
      if (static_cast<std::size_t>(id) < barred.size()) barred[static_cast<std::size_t>(id)] = true;
    }
    for (std::size_t i = 0; i < v_.pieces.size(); ++i) {
      const std::string& piece = v_.pieces[i];
      const auto id = static_cast<TokenId>(i);
      if (v_.byte_units) {
        if (piece.size() == 1) bytes_[static_cast<unsigned char>(piece[0])] = id;
      } else if (!piece.empty() && utf8_length(piece, 0) == piece.size() && !barred[i]) {
        characters_.add(code_point(piece, 0, piece.size()), id);
        if (piece.size() == 1) bytes_[static_cast<unsigned char>(piece[0])] = id;
      }
    }
    for (const std::string& piece : v_.pieces) {
      if (piece.size() < 2) continue;
      const bool at_start = piece[0] == ' ' || piece.starts_with("\xe2\x96\x81");
      const bool at_end = piece.back() == ' ' || piece.ends_with("\xe2\x96\x81");
      spaces_lead_ += (at_start ? 1 : 0) - (at_end ? 1 : 0);
    }
    for (const BpeMerge& m : v_.merges) {
      if (barred[static_cast<std::size_t>(m.result)]) continue;
      pairs_.add(m);
      join(m);
    }
    v_.merges = {};
    // Most words of a text are a piece that its own merges lead to.
    WordTable words(v_.pieces.size());
    origins_.assign(v_.pieces.size(), not_made);
    for (std::size_t i = 0; i < v_.pieces.size(); ++i) {
      if (v_.pieces[i].empty() || barred[i]) continue;
      const auto id = static_cast<TokenId>(i);
      const bool whole = encodes_to(v_.pieces[i], id, origins_[i]);
      if (!whole) origins_[i] = out_of_order;
      if (whole || v_.whole_words) words.add(id, v_.pieces);
    }
    sort_out_origins();
    words_ = std::move(words);
  }

  const BpeVocabulary& vocabulary() const { return v_; }

  /// Calls token(id, end) for the tokens of a word of less than 4 GiB, in order; `end` is where the
  /// token ends in it. `cache` must have seen no other model.
  /// **Cost:** O(n log n) in the word's characters.
  /// \throws Error(mismatch) for a character that is no piece, without fallback and unknown id.
  template <class Token>
  void encode(std::string_view word, BpeCache& cache, Token&& token) const {
    if (word.empty()) return;
    if (const TokenId id = words_.find(word, v_.pieces); id >= 0) {
      token(id, word.size());
      return;
    }
    cache.tokens.clear();
    if (word.size() <= BpeCache::Entry::max_bytes) {
      append_tokens(word, 0, cache);
    } else if (v_.byte_units || !cuts_) {
      encode_part(word, 0, token);
      return;
    } else {
      encode_long(word, cache, token);
    }
    for (const Symbol& s : cache.tokens) token(s.id, s.end);
  }

 private:
  using Symbol = BpeSymbol;
  static constexpr std::size_t few = detail::few_symbols;
  static constexpr std::uint32_t none = PairTable::none;
  static constexpr BpeMerge not_made = {-1, -1, -1, 0};  // in origins_: no merge makes the piece
  static constexpr BpeMerge out_of_order = {-1, -1, -1, none};

  /// Notes which characters a merge joins.
  void join(const BpeMerge& m) {
    if (v_.byte_units) return;
    const std::string& left = v_.pieces[static_cast<std::size_t>(m.left)];
    const std::string& right = v_.pieces[static_cast<std::size_t>(m.right)];
    const auto fallback = [this](TokenId id) {
      return std::find(v_.fallback.begin(), v_.fallback.end(), id) != v_.fallback.end();
    };
    // Merges of bytes or of the unknown id stand for characters that are not in their names.
    const bool odd =
        left.empty() || right.empty() || m.left == v_.unknown || m.right == v_.unknown ||
        m.result == v_.unknown || (left[0] == '<' && fallback(m.left)) ||
        (right[0] == '<' && fallback(m.right)) || (left[0] == '<' && fallback(m.result));
    std::size_t last = left.size();
    while (last > 0 && (static_cast<unsigned char>(left[--last]) & 0xc0) == 0x80) {
    }
    if (odd || utf8_length(left, last) == 0 || utf8_length(right, 0) == 0) {
      cuts_ = false;
      return;
    }
    const std::uint32_t before = code_point(left, last, left.size() - last);
    const std::uint32_t behind = code_point(right, 0, utf8_length(right, 0));
    joined_.add(before, behind);
  }

  bool encodes_to(const std::string& piece, TokenId id, BpeMerge& origin) const {
    if (!v_.byte_units && piece.size() > 1 && v_.fallback.empty() && !v_.unknown) {
      // Without either an unknown character would be an error.
      for (std::size_t at = 0; at < piece.size();) {
        const std::size_t n = utf8_length(piece, at);
        if (n == 0 || characters_.find(code_point(piece, at, n)) < 0) return false;
        at += n;
      }
    }
    if (v_.byte_units) {
      for (const char c : piece) {
        if (bytes_[static_cast<unsigned char>(c)] < 0) return false;
      }
    }
    TokenId first = -1;
    bool several = false;
    const auto token = [&](TokenId t, std::size_t) {
      several = several || first >= 0;
      first = t;
    };
    encode_part(piece, 0, token, &origin);
    return !several && first == id;
  }

  static bool is_space(std::uint32_t c) { return c == ' ' || c == 0x2581 || c == '\n'; }

  /// Encodes word by word, although merges may cross from one to the next. Why that is right: a
  /// sequence of tokens is the encoding of its text if, and only if, each token and each two
  /// neighbours are the encoding of theirs. For as long as no merge crosses from one token's text
  /// to the next one's, merging goes on inside of each as if it were alone, in an order that for
  /// two neighbours does not depend on the rest; the first merge that crosses would cross between
  /// these two alone as well, and the other way around. So tokens can be put behind tokens where
  /// the two that meet are known to stand; where they do not, some of the tokens before are made
  /// anew. What is left when the last part ends is in cache.tokens.
  template <class Token>
  void encode_long(std::string_view text, BpeCache& cache, Token& token) const {
    constexpr std::size_t enough = 16;  // bytes, to cut inside of a word where no merge can cross
    const bool fuse = v_.fuse_unknown && v_.fallback.empty();
    const auto known = [this](std::uint32_t c) { return c != invalid && characters_.find(c) >= 0; };
    Part part;
    std::size_t begin = 0, at = 0;  // of the word, of the character
    std::uint32_t before = invalid;
    while (at < text.size()) {
      const auto byte = static_cast<unsigned char>(text[at]);
      const std::size_t n = byte < 0x80 ? 1 : utf8_length(text, at);
      const std::uint32_t c = byte < 0x80 ? byte : n == 0 ? invalid : code_point(text, at, n);
      const bool between =
          spaces_lead_ >= 0 ? is_space(c) && !is_space(before) : is_space(before) && !is_space(c);
      if (at > begin && (between || at - begin >= enough) &&
          !(fuse && !known(before) && !known(c))) {
        const bool cut = !joined_.contains(before, c);  // no merge crosses here
        if (cut || between) {
          append_word(text, begin, at, part, cache);
          begin = at;
        }
        if (cut) {
          finish_part(text, at, part, cache, token);
          cache.tokens.clear();
          part = {.begin = at};
        }
      }
      before = c;
      at += n == 0 ? 1 : n;
    }
    append_word(text, begin, at, part, cache);
    finish_part(text, at, part, cache, token);
    cache.tokens.clear();
  }

  /// Text from a place that no merge crosses; its tokens so far are in the cache.
  struct Part {
    std::size_t begin = 0;
    std::size_t again = 0;  // bytes that were encoded again
    bool at_once = false;   // too many: no more tokens until its end
  };
  template <class Token>
  void finish_part(std::string_view text, std::size_t end, const Part& part, const BpeCache& cache,
                   Token& token) const {
    if (part.at_once) {
      encode_part(text.substr(part.begin, end - part.begin), part.begin, token);
    } else {
      for (const Symbol& s : cache.tokens) token(s.id, s.end);
    }
  }

  void append_word(std::string_view text, std::size_t begin, std::size_t end, Part& part,
                   BpeCache& cache) const {
    std::vector<Symbol>& tokens = cache.tokens;
    std::size_t kept = tokens.size();
    for (std::size_t back = 1; !part.at_once; back *= 2) {
      tokens.resize(kept);
      append_tokens(text.substr(begin, end - begin), begin, cache);
      if (kept == 0 || may_meet(text, part.begin, kept, cache)) return;
      kept -= std::min(kept, back);
      begin = kept == 0 ? part.begin : tokens[kept - 1].end;
      part.again += end - begin;
      part.at_once = part.again > 8 * (end - part.begin) + 1024;
    }
  }

  /// Whether the tokens before and at `i` are the encoding of their text.
  bool may_meet(std::string_view text, std::size_t part_begin, std::size_t i,
                const BpeCache& cache) const {
    const std::vector<Symbol>& tokens = cache.tokens;
    BpeMerge left = origins_[static_cast<std::size_t>(tokens[i - 1].id)];
    BpeMerge right = origins_[static_cast<std::size_t>(tokens[i].id)];
    if (left.rank == none || right.rank == none) {
      const std::size_t begin = i == 1 ? part_begin : tokens[i - 2].end;
      const std::size_t middle = tokens[i - 1].end, end = tokens[i].end;
      bool meet = false;
      encode_part(text.substr(begin, end - begin), begin,
                  [&](TokenId, std::size_t e) { meet = meet ? e == end : e == middle; });
      return meet;
    }
    // Back in time: at no moment did the merge of what met precede the next one on either side.
    left.result = tokens[i - 1].id;
    right.result = tokens[i].id;
    std::uint32_t next = none;
    for (;;) {
      const std::uint32_t rank = pairs_.find(left.result, right.result).rank;
      if (rank < next) return false;
      const bool left_made = left.left >= 0, right_made = right.left >= 0;
      if (right_made && (!left_made || right.rank >= left.rank)) {
        next = right.rank + 1;  // of equal ranks the one that crosses is further left
        right = origin_of(right.left);
      } else if (left_made) {
        next = left.rank;
        left = origin_of(left.right);
      } else {
        return true;
      }
    }
  }
  BpeMerge origin_of(TokenId id) const {
    BpeMerge m = origins_[static_cast<std::size_t>(id)];
    m.result = id;
    return m;
  }

  /// Marks pieces whose merges do not go in the order of ranks.
  void sort_out_origins() {
    if (v_.byte_units || !cuts_) {
      origins_ = {};
      return;
    }
    std::vector<TokenId> inert = v_.fallback;
    if (v_.unknown) inert.push_back(*v_.unknown);
    for (const TokenId id : inert) {  // join() has seen to it that no merge knows them
      const auto i = static_cast<std::size_t>(id);
      if (i >= origins_.size()) origins_.resize(i + 1, not_made);
      origins_[i] = not_made;
    }
    std::vector<std::uint32_t> by_size(v_.pieces.size());
    std::iota(by_size.begin(), by_size.end(), 0u);
    std::sort(by_size.begin(), by_size.end(), [this](std::uint32_t a, std::uint32_t b) {
      return v_.pieces[a].size() < v_.pieces[b].size();
    });
    for (const std::uint32_t i : by_size) {
      BpeMerge& m = origins_[i];
      if (m.left < 0) continue;
      for (const TokenId part : {m.left, m.right}) {
        const BpeMerge& before = origins_[static_cast<std::size_t>(part)];
        if (before.rank > m.rank) m.rank = none;
      }
    }
  }

  /// Puts the tokens of a text that starts at `base` behind those of the cache.
  void append_tokens(std::string_view text, std::size_t base, BpeCache& cache) const {
    std::vector<Symbol>& tokens = cache.tokens;
    const bool is_short = text.size() <= BpeCache::Entry::max_bytes;
    BpeCache::Entry* entry = is_short ? &cache.entry(text) : nullptr;
    if (is_short && entry->holds(text)) {
      for (std::size_t i = 0; i < entry->count; ++i) {
        tokens.push_back({entry->ids[i], static_cast<std::uint32_t>(base + entry->ends[i])});
      }
      return;
    }
    const std::size_t first = tokens.size();
    const TokenId id = v_.whole_words ? -1 : words_.find(text, v_.pieces);
    if (id >= 0) {
      tokens.push_back({id, static_cast<std::uint32_t>(base + text.size())});
    } else {
      encode_part(text, base, [&tokens](TokenId t, std::size_t end) {
        tokens.push_back({t, static_cast<std::uint32_t>(end)});
      });
    }
    if (is_short) entry->set(text, tokens, first, base);
  }

  template <class Token>
  void encode_part(std::string_view text, std::size_t base, Token&& token,
                   BpeMerge* last = nullptr) const {
    if (text.size() <= few) {
      std::array<Symbol, few> symbols;
      std::size_t count = 0;
      make_symbols(text, [&](Symbol s) { symbols[count++] = s; });
      count = detail::merge_few(pairs_, symbols, count, last);
      for (std::size_t i = 0; i < count; ++i) token(symbols[i].id, base + symbols[i].end);
    } else {
      std::vector<Symbol> symbols;
      make_symbols(text, [&](Symbol s) { symbols.push_back(s); });
      detail::merge_many(pairs_, symbols, last);
      for (const Symbol& s : symbols) token(s.id, base + s.end);
    }
  }

  template <class Push>
  void make_symbols(std::string_view text, Push&& push) const {
    if (v_.byte_units) {
      std::optional<std::uint32_t> unknown_end;  // a pending unknown symbol
      for (std::size_t at = 0; at < text.size(); ++at) {
        const TokenId id = bytes_[static_cast<unsigned char>(text[at])];
        if (id < 0) {
          make_unknown(text.substr(at, 1), at + 1, unknown_end, push);
          continue;
        }
        if (unknown_end) push(Symbol{*v_.unknown, *std::exchange(unknown_end, std::nullopt)});
        push(Symbol{id, static_cast<std::uint32_t>(at + 1)});
      }
      if (unknown_end) push(Symbol{*v_.unknown, *unknown_end});
      return;
    }
    std::optional<std::uint32_t> unknown_end;
    for (std::size_t at = 0; at < text.size();) {
      const auto byte = static_cast<unsigned char>(text[at]);
      const std::size_t n = byte < 0x80 ? 1 : utf8_length(text, at);
      const TokenId id = byte < 0x80 ? bytes_[byte]
                         : n == 0    ? -1
                                     : characters_.find(code_point(text, at, n));
      const std::size_t end = at + (n == 0 ? 1 : n);
      if (id >= 0) {
        if (unknown_end) push(Symbol{*v_.unknown, *std::exchange(unknown_end, std::nullopt)});
        push(Symbol{id, static_cast<std::uint32_t>(end)});
      } else if (!v_.fallback.empty()) {
        for (std::size_t i = at; i < end; ++i) {
          push(Symbol{v_.fallback[static_cast<unsigned char>(text[i])],
                      static_cast<std::uint32_t>(i + 1)});
        }
      } else {
        make_unknown(text.substr(at, end - at), end, unknown_end, push);
      }
      at = end;
    }
    if (unknown_end) push(Symbol{*v_.unknown, *unknown_end});
  }
  template <class Push>
  void make_unknown(std::string_view character, std::size_t end,
                    std::optional<std::uint32_t>& unknown_end, Push&& push) const {
    if (!v_.unknown) {
      fail({.kind = ErrorClass::mismatch,
            .file = v_.name,
            .found = "the character " + escaped(character) + " in the text",
            .expected = "a vocabulary with this character, byte fallback, or an unknown token"});
    }
    if (unknown_end && !v_.fuse_unknown) push(Symbol{*v_.unknown, *unknown_end});
    unknown_end = static_cast<std::uint32_t>(end);
  }

  static constexpr std::uint32_t invalid = 0xffffffffu;  // in place of a character

  BpeVocabulary v_;
  PairTable pairs_;
  WordTable words_;
  NumberTable characters_;
  JoinedCharacters joined_;
  std::vector<BpeMerge> origins_;  // by id: the last merge of a piece's own text
  bool cuts_ = true;
  std::int64_t spaces_lead_ = 0;  // pieces that start with a space, less those that end with one
  std::array<TokenId, 256> bytes_ = [] {  // of byte units, or of ASCII characters
    std::array<TokenId, 256> none_yet{};
    none_yet.fill(-1);
    return none_yet;
  }();
};

}  // namespace ropewalk::inline ROPEWALK_ABI
