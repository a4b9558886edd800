// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The known word nearest to a mistyped one, for error messages.

#include <cstddef>
#include <string>
#include <string_view>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Number of inserted, removed, replaced or swapped adjacent characters that turn a into b, neither
/// longer than 64. For longer words the length of the longer one.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  constexpr std::size_t limit = 64;
  if (a.size() > limit || b.size() > limit) return a.size() > b.size() ? a.size() : b.size();
  std::size_t rows[3][limit + 1];  // of the last three prefixes of a
  for (std::size_t j = 0; j <= b.size(); ++j) rows[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t* row = rows[i % 3];
    const std::size_t* above = rows[(i + 2) % 3];
    const std::size_t* before = rows[(i + 1) % 3];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t best = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      const auto offer = [&best](std::size_t d) { best = d < best ? d : best; };
      offer(above[j] + 1);
      offer(row[j - 1] + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) offer(before[j - 2] + 1);
      row[j] = best;
    }
  }
  return rows[a.size() % 3][b.size()];
}

/// Picks the nearest of the words offered to it.
class NearestWord {
 public:
  explicit NearestWord(std::string_view word) : word_(word) {}
  void offer(std::string_view candidate) {
    const std::size_t distance = edit_distance(word_, candidate);
    const std::size_t longer = word_.size() > candidate.size() ? word_.size() : candidate.size();
    if (2 * distance > longer || (!best_.empty() && distance >= best_distance_)) return;
    best_ = candidate;
    best_distance_ = distance;
  }
  /// The first candidate with the fewest edits; empty if every one differed in more than half of
  /// the longer word's characters. A view of that candidate.
  std::string_view best() const { return best_; }

 private:
  std::string_view word_;
  std::string_view best_;
  std::size_t best_distance_ = 0;
};

/// NearestWord over a range of things that convert to std::string_view.
template <class Range>
std::string nearest(std::string_view word, const Range& candidates) {
  NearestWord nearest_word(word);
  for (const auto& candidate : candidates) nearest_word.offer(candidate);
  return std::string(nearest_word.best());
}

}  // namespace ropewalk::inline ROPEWALK_ABI
