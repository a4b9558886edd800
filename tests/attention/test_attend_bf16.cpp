// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "attention/attend_checks.hpp"

using namespace ropewalk;

TEST_CASE("attention/blockwise: bf16 of every shape agree with the formula in double") {
  check_sizes<bf16>();
}
TEST_CASE("attention/blockwise: bf16, one query of many heads, which become rows") {
  check_decode<bf16>();
}
TEST_CASE("attention/blockwise: bf16 with documents, windows, bit masks, rows that see nothing") {
  check_masks<bf16>();
}
TEST_CASE("attention/blockwise: bf16 have the same bits in every composition") {
  check_bits<bf16>();
}
TEST_CASE("attention/blockwise: bf16, NaN and infinity reach the rows that see them") {
  check_not_finite<bf16>();
}

TEST_CASE("attention/blockwise: bf16 by matrix tiles agree with the formula in double") {
  check_sizes<bf16, SumsOfTiles>();
  check_decode<bf16, SumsOfTiles>();
  check_masks<bf16, SumsOfTiles>();
}
TEST_CASE("attention/blockwise: bf16 by matrix tiles have the same bits in every composition") {
  check_bits<bf16, SumsOfTiles>();
}
TEST_CASE("attention/blockwise: bf16 by matrix tiles, NaN and infinity reach the rows near them") {
  check_not_finite<bf16, SumsOfTiles>();
}
