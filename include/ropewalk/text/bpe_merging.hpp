// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Merging of symbols by a table of pairs: of all adjacent pairs in the table the one of lowest
/// rank is merged, the leftmost among equals, until none is left.

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "ropewalk/text/bpe_tables.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A token and where it ends in its text.
struct BpeSymbol {
  TokenId id = 0;
  std::uint32_t end = 0;
};

namespace detail {

inline constexpr std::size_t few_symbols = 64;

/// Merges the first `count` symbols, by a search through all pairs for each merge; returns how many
/// are left. The last merge made, if any, goes to `last` unless that is null.
inline std::size_t merge_few(const PairTable& pairs, std::array<BpeSymbol, few_symbols>& s,
                             std::size_t count, BpeMerge* last) {
  constexpr std::uint32_t none = PairTable::none;
  if (count < 2) return count;
  std::array<std::uint32_t, few_symbols> ranks;
  std::array<TokenId, few_symbols> results;
  const auto look = [&](std::size_t i) {
    const PairTable::Found f = pairs.find(s[i].id, s[i + 1].id);
    ranks[i] = f.rank;
    results[i] = f.result;
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look(i);
  while (count > 1) {
    std::size_t best = 0;
    std::uint32_t rank = none;
    for (std::size_t i = 0; i + 1 < count; ++i) {
      if (ranks[i] < rank) rank = ranks[i], best = i;
    }
    if (rank == none) break;
    if (last != nullptr) *last = {s[best].id, s[best + 1].id, results[best], rank};
    s[best] = {results[best], s[best + 1].end};
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      s[i] = s[i + 1];
      ranks[i] = ranks[i + 1];
      results[i] = results[i + 1];
    }
    --count;
    if (best > 0) look(best - 1);
    if (best + 1 < count) look(best);
  }
  return count;
}

/// The same by a queue. **Cost:** O(n log n).
inline void merge_many(const PairTable& pairs, std::vector<BpeSymbol>& s, BpeMerge* last) {
  constexpr std::uint32_t none = PairTable::none;
  const std::size_t count = s.size();
  if (count < 2) return;
  struct Link {
    std::uint32_t before, after;
    std::uint32_t rank;  // of the pair that starts here; none also for symbols merged away
    TokenId result;
  };
  std::vector<Link> links(count);
  std::vector<std::uint64_t> queue;  // rank, then place: smallest on top; some are out of date
  queue.reserve(count);
  const auto end = static_cast<std::uint32_t>(count);
  const auto look = [&](std::uint32_t i) {
    Link& link = links[i];
    link.rank = none;
    if (link.after == end) return false;
    const PairTable::Found f = pairs.find(s[i].id, s[link.after].id);
    link.rank = f.rank;
    link.result = f.result;
    return f.rank != none;
  };
  const auto entry = [&](std::uint32_t i) { return std::uint64_t{links[i].rank} << 32 | i; };
  for (std::uint32_t i = 0; i < end; ++i) {
    links[i] = {i - 1, i + 1, none, -1};
    if (look(i)) queue.push_back(entry(i));
  }
  const std::greater<> order;
  std::make_heap(queue.begin(), queue.end(), order);
  const auto push = [&](std::uint32_t i) {
    if (!look(i)) return;
    queue.push_back(entry(i));
    std::push_heap(queue.begin(), queue.end(), order);
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), order);
    const std::uint64_t top = queue.back();
    queue.pop_back();
    const auto i = static_cast<std::uint32_t>(top);
    if (links[i].rank != top >> 32) continue;
    const std::uint32_t gone = links[i].after;
    if (last != nullptr) *last = {s[i].id, s[gone].id, links[i].result, links[i].rank};
    s[i] = {links[i].result, s[gone].end};
    links[i].after = links[gone].after;
    links[gone].rank = none;
    if (links[gone].after != end) links[links[gone].after].before = i;
    if (i > 0) push(links[i].before);
    push(i);
  }
  std::size_t kept = 0;
  for (std::uint32_t i = 0; i != end; i = links[i].after) s[kept++] = s[i];
  s.resize(kept);
}

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
