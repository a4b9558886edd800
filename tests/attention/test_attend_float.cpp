// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "attention/attend_checks.hpp"

using namespace ropewalk;

TEST_CASE("attention/blockwise: floats of every shape agree with the formula in double") {
  check_sizes<float>();
}
TEST_CASE("attention/blockwise: floats, one query of many heads, which become rows") {
  check_decode<float>();
}
TEST_CASE("attention/blockwise: floats with documents, windows, bit masks, rows that see nothing") {
  check_masks<float>();
}
TEST_CASE("attention/blockwise: floats have the same bits in every composition") {
  check_bits<float>();
}
TEST_CASE("attention/blockwise: floats, NaN and infinity reach the rows that see them") {
  check_not_finite<float>();
}
