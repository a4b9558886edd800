// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// growth: how the time of a computation grows with its input, whatever the machine is doing.

#include <algorithm>
#include <cstddef>
#include <ctime>

namespace ropewalk {

/// Processor seconds of f(8 n) over those of f(n), each the best of three: 8 if linear, 64 if
/// quadratic. Checks ask for less than quadratic_growth; the gap leaves room for caches and noise.
/// f prepares nothing that costs much.
template <class F>
double growth(std::size_t n, F&& f) {
  double best[2] = {1e300, 1e300};
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (const int i : {0, 1}) {
      const std::clock_t start = std::clock();  // processor time: other processes do not count
      f(i == 0 ? n : 8 * n);
      best[i] = std::min(best[i], static_cast<double>(std::clock() - start));
    }
  }
  return best[1] / std::max(best[0], 1e-3 * static_cast<double>(CLOCKS_PER_SEC));
}
inline constexpr double quadratic_growth = 32;

}  // namespace ropewalk
