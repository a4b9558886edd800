// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "golden/rope_positions.hpp"
#include "support/error_of.hpp"

namespace ropewalk {

TEST_CASE("rope/query_scale: golden log-n factors") {
  for (const golden::LogNCase& c : golden::logn()) {
    // Quotients of two logarithms, each within an ulp.
    CHECK(std::fabs(logn_scale({c.length, true}, c.position) - c.clipped) < 1e-15 * c.clipped);
    CHECK(std::fabs(logn_scale({c.length, false}, c.position) - c.unclipped) <= 1e-15 * c.clipped);
  }
  CHECK(std::fabs(logn_scale({4096, true}, 8191) - 13.0 / 12) < 1e-15);
  CHECK(std::fabs(logn_scale({4096, true}, 131071) - 17.0 / 12) < 1e-15);
}

TEST_CASE("rope/query_scale: 1 up to the trained length, then growing") {
  const std::vector<std::int64_t> positions = {0, 1, 255, 256, 257, 1000, 1000, 5};
  const std::vector<float> scale = make_query_scale(LogN{256, true}, positions);
  REQUIRE(scale.size() == positions.size());
  CHECK(scale[0] == 1);
  CHECK(scale[2] == 1);  // sees 256 keys
  CHECK(scale[3] > 1);
  CHECK(scale[4] > scale[3]);
  CHECK(scale[5] == scale[6]);
  CHECK(scale[7] == 1);
  const std::vector<float> unclipped = make_query_scale(LogN{256, false}, positions);
  CHECK(unclipped[0] == 0);
  CHECK(unclipped[1] == 0.125f);  // ln 2 / ln 256
  CHECK(unclipped[2] == 1);
  CHECK(unclipped[5] == scale[5]);
}

TEST_CASE("rope/query_scale: none without a length; what it cannot take is refused") {
  const std::vector<std::int64_t> positions = {0, 7};
  CHECK(make_query_scale(LogN{}, positions).empty());
  const FrequencyPlan plain = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8});
  CHECK(make_query_scale(plain, positions).empty());
  const FrequencyPlan plan =
      make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8}, {.logn_length = 4});
  CHECK(make_query_scale(plan, positions) == std::vector<float>{1, 1.5f});  // ln 8 / ln 4
  CHECK(outcome_of([&] { make_query_scale(LogN{1, true}, positions); }) == "usage");
  const std::vector<std::int64_t> negative = {-1};
  CHECK(outcome_of([&] { make_query_scale(plan, negative); }) == "usage");
}

}  // namespace ropewalk
