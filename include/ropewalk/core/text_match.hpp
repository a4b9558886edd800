// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The known word nearest to a mistyped one, for error messages.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Number of inserted, removed, replaced or swapped adjacent characters that turn a into b.
/// **Cost:** a.size() * b.size().
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(above);
    above.swap(row);
  }
  return above[b.size()];
}

/// The candidate with the fewest edits from `word`, the first of several; empty when even that one
/// differs in more than half of the longer word's characters, or the word is longer than 64.
/// `candidates`: any range of things that convert to std::string_view.
template <class Range>
std::string nearest(std::string_view word, const Range& candidates) {
  std::string_view best;
  std::size_t best_distance = 0;
  if (word.empty() || word.size() > 64) return {};
  for (const auto& candidate : candidates) {
    const std::string_view c = candidate;
    const std::size_t distance = edit_distance(word, c);
    if (2 * distance > std::max(word.size(), c.size())) continue;
    if (best.empty() || distance < best_distance) best = c, best_distance = distance;
  }
  return std::string(best);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
