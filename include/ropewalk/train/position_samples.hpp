// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Random positions of short sequences that train a model for a longer range: RandPos and PoSE.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ropewalk/core/permutation.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// `n` different positions of [0, range), ascending (randomized positional encodings,
/// arXiv:2305.16843, section 3). \throws Error(usage) for n > range
inline std::vector<std::int64_t> random_positions(index_t n, std::int64_t range,
                                                  const Random& random) {
  require(n >= 0 && n <= range, "a range of positions of at least as many as there are tokens");
  std::vector<std::int64_t> positions(static_cast<std::size_t>(n));
  if (n == 0) return positions;
  const Permutation order(static_cast<std::uint64_t>(range), random);
  std::uint64_t i = 0;
  for (std::int64_t& p : positions) p = static_cast<std::int64_t>(order(i++));
  std::ranges::sort(positions);
  return positions;
}

/// Positions of [0, range) that skip between chunks: token j of chunk i is at j + u_i, u_0 = 0, the
/// skips u_i ascending and uniform on [u_{i-1}, range - n], the chunks' ends uniform (PoSE,
/// arXiv:2309.10400, section 3.2; the paper takes two chunks).
/// \throws Error(usage) for n > range or fewer than one chunk
inline std::vector<std::int64_t> skipped_positions(index_t n, std::int64_t range, index_t chunks,
                                                   const Random& random) {
  require(n >= 0 && n <= range, "a range of positions of at least as many as there are tokens");
  require(chunks >= 1, "chunks >= 1");
  const auto draw = [&](std::int64_t first, std::int64_t last, index_t element) {
    const double u = random.uniform(static_cast<std::uint64_t>(element));
    return first + static_cast<std::int64_t>(u * static_cast<double>(last - first + 1));
  };
  std::vector<index_t> starts;  // of chunks 1, 2, ...
  for (index_t i = 1; i < std::min(chunks, n); ++i) starts.push_back(draw(1, n - 1, i));
  std::ranges::sort(starts);
  std::vector<std::int64_t> positions(static_cast<std::size_t>(n));
  std::int64_t skip = 0;
  std::size_t chunk = 0;
  for (index_t j = 0; j < n; ++j) {
    for (; chunk < starts.size() && starts[chunk] == j; ++chunk) {
      skip = draw(skip, range - n, chunks + static_cast<index_t>(chunk));
    }
    positions[static_cast<std::size_t>(j)] = j + skip;
  }
  return positions;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
