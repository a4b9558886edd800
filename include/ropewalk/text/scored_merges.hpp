// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Sentencepiece's byte-pair encoding as merges: of all adjacent pairs whose union is a piece, the
/// one with the best score is merged, the leftmost among equals, until none is left.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/error.hpp"
#include "ropewalk/text/bpe_tables.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

inline constexpr std::string_view meta_space = "\xe2\x96\x81";  // U+2581

/// A piece as it stands in a text.
inline std::string shown_piece(std::string_view piece) {
  std::string out;
  for (std::size_t at = 0; at < piece.size();) {
    const bool space = piece.substr(at, meta_space.size()) == meta_space;
    out += space ? ' ' : piece[at];
    at += space ? meta_space.size() : 1;
  }
  return out;
}

}  // namespace detail

/// Bytes of a scored piece and of a file of them at most: every way to cut a piece is looked up.
inline constexpr std::size_t max_scored_piece = 1024;
inline constexpr std::uint64_t max_scored_file = std::uint64_t{64} << 20;

/// All merges that give a piece, ranked by its score; equal scores have equal ranks. `pieces` by
/// id, empty where an id is no piece of text, otherwise different; `name` of the file is for
/// messages. \throws Error(limit) for more than 2^23 merges.
inline std::vector<BpeMerge> merges_of_scores(const std::vector<std::string>& pieces,
                                              const std::vector<float>& scores,
                                              const std::string& name) {
  constexpr std::size_t max_merges = std::size_t{1} << 23;
  WordTable table(pieces.size());
  std::vector<float> order;  // different scores, the best first
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].empty()) continue;
    table.add(static_cast<TokenId>(i), pieces);
    order.push_back(scores[i]);
  }
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  std::vector<BpeMerge> merges;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string_view piece = pieces[i];
    const auto rank = static_cast<std::uint32_t>(
        std::lower_bound(order.begin(), order.end(), scores[i], std::greater<>()) - order.begin());
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xc0) == 0x80) continue;
      const TokenId left = table.find(piece.substr(0, cut), pieces);
      const TokenId right = left < 0 ? -1 : table.find(piece.substr(cut), pieces);
      if (right >= 0) merges.push_back({left, right, static_cast<TokenId>(i), rank});
    }
    if (merges.size() > max_merges) {
      fail({.kind = ErrorClass::limit,
            .file = name,
            .found = "pieces that two others make in more than 8388608 ways",
            .expected = "at most 8388608"});
    }
  }
  return merges;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
