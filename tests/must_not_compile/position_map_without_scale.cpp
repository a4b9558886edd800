// SPDX-License-Identifier: Apache-2.0
/// \file
/// A position map must say what its integers are multiplied by.
// EXPECT: satisf[a-z]+( of)? 'PositionMap
// EXPECT: 'map\.scale\(\)'

#include <cstdint>
#include <vector>

#include "ropewalk/rope/position_map.hpp"

struct Reversed {
  std::int64_t last = 0;
  std::int64_t operator()(std::int64_t token) const { return last - token; }
#ifndef MISUSE
  double scale() const { return 1; }
#endif
};

std::vector<std::int64_t> positions() { return ropewalk::batch_positions(Reversed{9}, 10); }
