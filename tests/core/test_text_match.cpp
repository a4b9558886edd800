// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/number_text.hpp"
#include "ropewalk/core/rng.hpp"
#include "ropewalk/core/text_match.hpp"

namespace ropewalk {

TEST_CASE("core/text_match: edit distance counts insertions, removals, replacements and swaps") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("facotr", "factor") == 1);
  CHECK(edit_distance("fator", "factor") == 1);
  CHECK(edit_distance("factor", "factor") == 0);
  CHECK(edit_distance(std::string(64, 'a'), std::string(64, 'b')) == 64);
  CHECK(edit_distance(std::string(1000, 'a'), "a") == 1000);
}

TEST_CASE("core/text_match: the nearest word, or none") {
  const std::vector<std::string_view> words = {"--lengths", "--length", "--model", "--text"};
  CHECK(nearest("--lenght", words) == "--length");
  CHECK(nearest("--modle", words) == "--model");
  CHECK(nearest("--model", words) == "--model");
  CHECK(nearest("zzzzzzz", words).empty());
  CHECK(nearest("", words).empty());
  CHECK(nearest(std::string(100000, '-'), words).empty());
  CHECK(nearest("x", std::vector<std::string>{}).empty());
}

TEST_CASE("core/number_text: the shortest text that reads back") {
  CHECK(number_text(0.0) == "0");
  CHECK(number_text(500000.0) == "500000");
  CHECK(number_text(-4.0) == "-4");
  CHECK(number_text(0.1) == "0.1");
  CHECK(number_text(1e22) == "1e+22");
  CHECK(number_text(std::numeric_limits<double>::infinity()) == "inf");
  CHECK(number_text(std::int64_t{-7}) == "-7");
  const Random random{.seed = 3, .stream = 0, .step = 0};
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const auto x = std::bit_cast<double>(random.bits(i));
    if (x - x != 0) continue;
    CHECK(parse_real(number_text(x)) == x);
  }
}

TEST_CASE("core/number_text: strict parsing") {
  CHECK(parse_real("1.5") == 1.5);
  CHECK(parse_real("-1e-3") == -0.001);
  for (const char* wrong :
       {"", " 1", "1 ", "+1", "1x", "nan", "inf", "-inf", "1e400", "0x10", "1,5"}) {
    CHECK_MESSAGE(!parse_real(wrong), wrong);
  }
  CHECK(parse_integer("42") == 42);
  CHECK(parse_integer("-9223372036854775808") == std::numeric_limits<std::int64_t>::min());
  CHECK(parse_integer("9223372036854775807") == std::numeric_limits<std::int64_t>::max());
  for (const char* wrong : {"", "-", "--1", "+1", " 1", "1.0", "1e3", "9223372036854775808",
                            "-9223372036854775809", "4K"}) {
    CHECK_MESSAGE(!parse_integer(wrong), wrong);
  }
  CHECK(parse_size("4K") == 4096);
  CHECK(parse_size("32k") == 32768);
  CHECK(parse_size("1M") == 1048576);
  CHECK(parse_size("2G") == std::int64_t{1} << 31);
  CHECK(parse_size("100") == 100);
  for (const char* wrong : {"", "K", "4KK", "4 K", "4T", "9223372036854775807K"}) {
    CHECK_MESSAGE(!parse_size(wrong), wrong);
  }
}

}  // namespace ropewalk
