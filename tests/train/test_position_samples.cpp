// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/train/position_samples.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

TEST_CASE("train/position_samples: random positions ascend and have every place equally often") {
  constexpr index_t n = 8;
  constexpr std::int64_t range = 40;
  std::vector<int> seen(range);
  constexpr int draws = 4000;
  for (std::uint32_t i = 0; i < draws; ++i) {
    const auto positions = random_positions(n, range, {.seed = 7, .step = i});
    REQUIRE(std::ssize(positions) == n);
    CHECK(positions.front() >= 0);
    CHECK(positions.back() < range);
    CHECK(std::ranges::adjacent_find(positions, std::greater_equal<>()) == positions.end());
    for (const std::int64_t p : positions) ++seen[static_cast<std::size_t>(p)];
  }
  // Binomial: 800 +- 25.3; five standard deviations.
  for (const int count : seen) CHECK(std::abs(count - draws * n / range) < 127);
  CHECK(random_positions(5, 5, {}) == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  CHECK(random_positions(0, 5, {}).empty());
  CHECK(error_of([] { random_positions(6, 5, {}); }).kind == ErrorClass::usage);
}

TEST_CASE("train/position_samples: chunks keep their steps, skips reach the whole range") {
  constexpr index_t n = 16;
  constexpr std::int64_t range = 64;
  std::vector<int> start(n), skip(range - n + 1);
  constexpr int draws = 4000;
  for (std::uint32_t i = 0; i < draws; ++i) {
    const auto p = skipped_positions(n, range, 2, {.seed = 3, .step = i});
    REQUIRE(std::ssize(p) == n);
    CHECK(p.front() == 0);  // u_0 = 0
    CHECK(p.back() < range);
    index_t jumps = 0;
    for (std::size_t j = 1; j < p.size(); ++j) {
      CHECK(p[j] > p[j - 1]);
      if (p[j] > p[j - 1] + 1) ++jumps, ++start[j];
    }
    CHECK(jumps <= 1);
    ++skip[static_cast<std::size_t>(p.back() - (n - 1))];
  }
  // Skips are uniform on 0 .. 48, where 0 has no start: 81.6 +- 9.0, ends 261 +- 15.6.
  for (const int count : skip) CHECK(std::abs(count - draws / 49) < 45);
  for (std::size_t j = 1; j < n; ++j) CHECK(std::abs(start[j] - 261) < 79);
  CHECK(start[0] == 0);
}

TEST_CASE("train/position_samples: one chunk is plain, more chunks skip more often") {
  const std::vector<std::int64_t> plain = {0, 1, 2, 3};
  CHECK(skipped_positions(4, 100, 1, {}) == plain);
  CHECK(skipped_positions(4, 4, 3, {.seed = 1}) == plain);
  const auto p = skipped_positions(64, 1 << 20, 8, {.seed = 5});
  std::ptrdiff_t jumps = 0;
  for (std::size_t j = 1; j < p.size(); ++j) jumps += p[j] != p[j - 1] + 1;
  CHECK(jumps >= 5);
  CHECK(jumps <= 7);
  CHECK(error_of([] { skipped_positions(6, 5, 2, {}); }).kind == ErrorClass::usage);
  CHECK(error_of([] { skipped_positions(4, 5, 0, {}); }).kind == ErrorClass::usage);
}
