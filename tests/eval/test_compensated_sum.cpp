// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "ropewalk/eval/compensated_sum.hpp"

using namespace ropewalk;

TEST_CASE("eval/compensated_sum: compensated sums keep what plain sums lose") {
  CompensatedSum sum;
  sum.add(1e16);
  for (int i = 0; i < 1000; ++i) sum.add(0.25);
  sum.add(-1e16);
  CHECK(sum.value() == 250);
}
