// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Sentencepiece's byte-pair encoding: of all adjacent pairs whose union is a piece, the one with
/// the best score is merged, until none is left.

#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ropewalk/io/utf8.hpp"
#include "ropewalk/text/tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The pieces that text can become, each with id and score.
class ScoredPieces {
 public:
  struct Piece {
    TokenId id = 0;
    float score = 0;
  };

  /// False when the piece is there already.
  bool add(std::string piece, TokenId id, float score) {
    longest_ = piece.size() > longest_ ? piece.size() : longest_;
    return pieces_.try_emplace(std::move(piece), Piece{id, score}).second;
  }
  /// Null pointer when `text` is no piece.
  const Piece* find(std::string_view text) const {
    if (text.size() > longest_) return nullptr;
    const auto it = pieces_.find(text);
    return it == pieces_.end() ? nullptr : &it->second;
  }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  std::unordered_map<std::string, Piece, Hash, std::equal_to<>> pieces_;
  std::size_t longest_ = 0;
};

/// A token as a range of the text it came from.
struct TextToken {
  TokenId id = 0;
  std::size_t begin = 0;
  std::size_t size = 0;
};

/// Splits `text` into characters (bytes, where it is not UTF-8) and merges. Of equal scores the
/// leftmost pair goes first, as in llama2.c and sentencepiece. `unknown(begin, size, out)` appends
/// the tokens of a character that is no piece; it never merges.
/// **Cost:** O(n log n) in the characters.
template <class Unknown>
void encode_by_scores(std::string_view text, const ScoredPieces& pieces, Unknown&& unknown,
                      std::vector<TextToken>& out) {
  constexpr std::size_t none = static_cast<std::size_t>(-1);
  struct Symbol {
    std::size_t begin, size;  // in the text; size 0 once merged into its left neighbour
    std::size_t before, after;
    TokenId id;  // -1: no piece
  };
  struct Merge {
    float score;
    std::size_t left, right, size;  // symbols; bytes of both, to recognise an outdated entry
    bool operator<(const Merge& other) const {  // the best one is on top of the queue
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::vector<Symbol> symbols;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    const std::size_t size = length == 0 ? 1 : length;
    const ScoredPieces::Piece* p = pieces.find(text.substr(at, size));
    const std::size_t i = symbols.size();
    symbols.push_back({at, size, i == 0 ? none : i - 1, i + 1, p == nullptr ? -1 : p->id});
    at += size;
  }
  if (symbols.empty()) return;
  symbols.back().after = none;

  std::priority_queue<Merge> queue;
  const auto consider = [&](std::size_t left, std::size_t right) {
    if (left == none || right == none || symbols[left].id < 0 || symbols[right].id < 0) return;
    const std::size_t size = symbols[left].size + symbols[right].size;
    if (const auto* p = pieces.find(text.substr(symbols[left].begin, size))) {
      queue.push({p->score, left, right, size});
    }
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) consider(i, i + 1);
  while (!queue.empty()) {
    const Merge m = queue.top();
    queue.pop();
    Symbol& left = symbols[m.left];
    Symbol& right = symbols[m.right];
    if (left.size == 0 || right.size == 0 || left.size + right.size != m.size) continue;
    left.id = pieces.find(text.substr(left.begin, m.size))->id;
    left.size = m.size;
    left.after = right.after;
    if (right.after != none) symbols[right.after].before = m.left;
    right.size = 0;
    consider(left.before, m.left);
    consider(m.left, left.after);
  }
  for (std::size_t i = 0; i != none; i = symbols[i].after) {
    const Symbol& s = symbols[i];
    if (s.id < 0) {
      unknown(s.begin, s.size, out);
    } else {
      out.push_back({s.id, s.begin, s.size});
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
