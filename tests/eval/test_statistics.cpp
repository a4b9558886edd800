// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "ropewalk/eval/statistics.hpp"

using namespace ropewalk;

TEST_CASE("eval/statistics: compensated sums keep what plain sums lose") {
  CompensatedSum sum;
  sum.add(1e16);
  for (int i = 0; i < 1000; ++i) sum.add(0.25);
  sum.add(-1e16);
  CHECK(sum.value() == 250);
}

TEST_CASE("eval/statistics: mean, share, standard error and prefixes by hand") {
  const WindowLosses losses{
      .windows = 2, .length = 3, .nll = {1, 2, 6, 3, 4, 5}, .top1 = {1, 0, 1, 0, 0, 1}};
  const LossSummary two = summarize(losses, 2);
  CHECK(two.tokens == 4);
  CHECK(two.nll_sum == 10);
  CHECK(two.nll == 2.5);
  CHECK(two.ppl == doctest::Approx(std::exp(2.5)).epsilon(1e-15));
  CHECK(two.top1 == 0.25);
  CHECK(two.se == doctest::Approx(1.0));  // window means 1.5 and 3.5: deviation sqrt(2), / sqrt(2)
  const LossSummary three = summarize(losses, 3);
  CHECK(three.nll == 3.5);
  CHECK(three.se == doctest::Approx(0.5));
  CHECK(three.top1 == 0.5);
  const WindowLosses one{.windows = 1, .length = 1, .nll = {7}, .top1 = {0}};
  CHECK(std::isnan(summarize(one, 1).se));
  CHECK_THROWS_AS(summarize(losses, 4), Error);
  CHECK_THROWS_AS(summarize(losses, 0), Error);
}
