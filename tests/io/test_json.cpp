// SPDX-License-Identifier: Apache-2.0
#include <clocale>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/io/json.hpp"
#include "ropewalk/io/json_write.hpp"

#include "support/error_of.hpp"
#include "support/growth.hpp"

using namespace ropewalk;

namespace {

ErrorInfo json_error(std::string_view text) {
  return error_of([&] { parse_json(text, "f.json"); });
}
std::string json_outcome(std::string_view text) {
  return outcome_of([&] { parse_json(text, "f.json"); });
}
std::string repeated(std::string_view s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

}  // namespace

TEST_CASE("io/json: values keep type, order and exact integers") {
  const JsonDocument d = parse_json(
      R"( {"z":[1,-2,3.5,18446744073709551615,-9223372036854775808,true,null],"a":{"k":"v\u00e9"}} )",
      "f");
  const JsonView root = d.view();
  REQUIRE(root.as_object().keys == std::vector<std::string>{"z", "a"});
  const std::vector<JsonView> z = root.at("z").elements();
  REQUIRE(z.size() == 7);
  CHECK(z[0].as_integer() == 1);
  CHECK(z[1].as_integer() == -2);
  CHECK(z[2].as_number() == 3.5);
  CHECK(z[3].value().if_number()->natural == 18446744073709551615u);
  CHECK(z[4].as_integer() == std::numeric_limits<std::int64_t>::min());
  CHECK(z[5].as_bool());
  CHECK(z[6].is_null());
  CHECK(root.at("a").at("k").as_string() == "v\xc3\xa9");
  CHECK(root.at("a").at("k").pointer() == "/a/k");
  CHECK(!root.find("absent"));
}

TEST_CASE("io/json: wrong types and missing keys name file, pointer and both types") {
  const JsonDocument d =
      parse_json(R"({"a/b":[1,{"c~":"x"}],"n":2.0,"big":18446744073709551616,"t":true})", "f.json");
  const JsonView root = d.view();
  const ErrorInfo e = error_of([&] { root.at("a/b").elements()[1].at("c~").as_integer(); });
  CHECK(e.kind == ErrorClass::config);
  CHECK(e.file == "f.json");
  CHECK(e.where == "/a~1b/1/c~0");
  CHECK(e.found == "the string \"x\"");
  CHECK(e.expected == "an integer");
  CHECK(error_of([&] { root.at("n").as_integer(); }).found == "2");
  CHECK(error_of([&] { root.at("big").as_integer(); }).kind == ErrorClass::config);
  CHECK(error_of([&] { root.at("t").as_number(); }).found == "true");
  CHECK(error_of([&] { root.at("n").as_bool(); }).kind == ErrorClass::config);
  const ErrorInfo missing = error_of([&] { root.at("nope"); });
  CHECK(missing.kind == ErrorClass::config);
  CHECK(missing.field == "nope");
}

TEST_CASE("io/json: malformed texts, by class") {
  struct Row {
    std::string id;
    std::string text;
    std::string outcome;
  };
  const std::vector<Row> rows{
      {"B01 empty", "", "format"},
      {"B01 spaces", "  \n ", "format"},
      {"B02 depth 64", repeated("[", 64) + repeated("]", 64), "accepted"},
      {"B02 depth 65", repeated("[", 65) + repeated("]", 65), "limit"},
      {"B02 many [", repeated("[", 100000), "limit"},
      {"B02 many {", repeated("{\"a\":", 100000), "limit"},
      {"B03 string", "\"abc", "format"},
      {"B03 array", "[1,2", "format"},
      {"B03 object", "{\"a\":1", "format"},
      {"B04 hex", R"("\x41")", "format"},
      {"B04 short u", R"("\u12")", "format"},
      {"B04 bad u", R"("\uZZZZ")", "format"},
      {"B05 lone high", R"("\ud800")", "format"},
      {"B05 lone low", R"("\udc00")", "format"},
      {"B05 reversed", R"("\udc00\ud800")", "format"},
      {"B05 pair", R"("\ud83d\ude00")", "accepted"},
      {"B06 control", "\"a\nb\"", "format"},
      {"B06 NUL", std::string("\"a\0b\"", 5), "format"},
      {"B07 NaN", "NaN", "format"},
      {"B07 nan", "[nan]", "format"},
      {"B07 Infinity", "Infinity", "format"},
      {"B07 -Infinity", "[-Infinity]", "format"},
      {"B08 1e999", "1e999", "format"},
      {"B08 -1e999", "[-1e999]", "format"},
      {"B09 tiny", "1e-999", "accepted"},
      {"B10 many digits", "1" + repeated("0", 1000000), "limit"},
      {"B10 many decimals", "0." + repeated("1", 1000), "limit"},
      {"B11 comma", "[1,]", "format"},
      {"B11 comment", "[1] // x", "format"},
      {"B11 single quotes", "{'a':1}", "format"},
      {"B12 UTF-16 LE", std::string("\xff\xfe{\0}\0", 6), "format"},
      {"B12 UTF-16 BE", std::string("\0{\0}", 4), "format"},
      {"A10 BOM", "\xef\xbb\xbf{}", "format"},
      {"A09 0xff", "{\"\xff\":1}", "format"},
      {"A09 overlong", "{\"\xc0\x80\":1}", "format"},
      {"A09 surrogate", "{\"\xed\xa0\x80\":1}", "format"},
      {"A09 cut", "{\"a\":\"\xe2\x82", "format"},
      {"A13 NUL padding", std::string("{}\0\0", 4), "format"},
      {"A14 trailing", "{}x", "format"},
      {"A14 two", "{}{}", "format"},
      {"B13 duplicate", R"({"a":1,"a":1})", "format"},
      {"B13 deep duplicate", R"([{"b":{"a":1,"a":2}}])", "format"},
      {"A18 escaped duplicate", R"({"a":1,"\u0061":2})", "format"},
      {"same key apart", R"({"a":{"a":1},"b":{"a":1}})", "accepted"},
      {"A29 007", "007", "format"},
      {"A29 +1", "+1", "format"},
      {"A29 0x10", "0x10", "format"},
      {"A29 1_000", "1_000", "format"},
      {"B14 long string", "\"" + std::string(1 << 20, 'a') + "b\"", "limit"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.id);
    CHECK(json_outcome(row.text) == row.outcome);
  }
}

TEST_CASE("io/json: errors say where") {
  CHECK(json_error("{\n \"a\": [1,\n  x]}").where == "byte 14 (line 3, column 3)");
  CHECK(json_error("[1,2").where == "byte 4 (line 1, column 5)");
  CHECK(json_error("[1,2").found.find("unexpected end of input") != std::string::npos);
  CHECK(json_error("\xef\xbb\xbf{}").where == "byte 0");
  CHECK(json_error(std::string("{}\0", 3)).where == "byte 2 (line 1, column 3)");
  CHECK(json_error("{\"a\":\"\xff\"}").where == "byte 6 (line 1, column 7)");
  const ErrorInfo e = json_error(R"({"x":[{"a":1,"b":2,"a":3}]})");
  CHECK(e.field == "/x/0/a");
  CHECK(e.found == "the key \"a\" a second time");
  // Nothing of the file is shown unescaped.
  CHECK(to_text(json_error("[\"\x1b[31m")).find('\x1b') == std::string::npos);
  CHECK(to_text(json_error("{\"\\u001b[31m\":1,\"\\u001b[31m\":1}")).find('\x1b') ==
        std::string::npos);
}

TEST_CASE("io/json: every prefix of a valid text is refused, every bit flip ends typed") {
  const std::string text =
      R"({"hidden_size":128,"rope":{"type":"yarn","factor":4.5e0,"l":[1,-2,null,true]},"s":"\u00e9x"})";
  for (std::size_t n = 0; n < text.size(); ++n) {
    REQUIRE(json_outcome(text.substr(0, n)) == "format");
  }
  int accepted = 0;
  for (std::size_t i = 0; i < text.size() * 8; ++i) {
    std::string flipped = text;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    const std::string outcome = json_outcome(flipped);
    REQUIRE((outcome == "accepted" || outcome == "format" || outcome == "limit"));
    accepted += outcome == "accepted" ? 1 : 0;
  }
  CHECK(accepted > 0);
  CHECK(accepted < static_cast<int>(text.size()) * 8);
}

TEST_CASE("io/json: -0 is no integer, equality is by value and not by order") {
  CHECK(error_of([] { parse_json("-0", "f").view().as_integer(); }).kind == ErrorClass::config);
  CHECK(std::signbit(parse_json("-0", "f").view().as_number()));
  const auto same = [](std::string_view a, std::string_view b) {
    return same_json(parse_json(a, "a").root, parse_json(b, "b").root);
  };
  CHECK(same(R"({"a":8,"b":[1,"x",null]})", R"({"b":[1,"x",null],"a":8.0})"));
  CHECK(!same(R"({"a":8})", R"({"a":9})"));
  CHECK(!same(R"({"a":8})", R"({"a":8,"b":1})"));
  CHECK(!same("9007199254740993", "9007199254740992"));
  CHECK(!same("null", "false"));
}

TEST_CASE("io/json: numbers read the same under a locale with a decimal comma") {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  bool set = false;
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"}) {
    set = set || std::setlocale(LC_ALL, name) != nullptr;
  }
  if (!set) MESSAGE("no locale with a decimal comma is installed: tested in the C locale only");
  CHECK(parse_json("1.5", "f").view().as_number() == 1.5);
  CHECK(json_number(1.5) == "1.5");
  std::setlocale(LC_ALL, before.c_str());
}

TEST_CASE("io/json: 20 MB of spaces is parsed in linear time or refused") {
  const std::string text = "{}" + std::string(20'000'000 - 2, ' ');
  const JsonLimits limits{.max_bytes = 200'000'000};
  CHECK(growth(text.size() / 8, [&](std::size_t n) {
          CHECK(outcome_of([&] { parse_json(text.substr(0, n), "f", limits); }) == "accepted");
        }) < quadratic_growth);
  CHECK(outcome_of([&] { parse_json(text, "f"); }) == "limit");
}

TEST_CASE("io/json_write: strings survive the way through JSON, bad UTF-8 becomes U+FFFD") {
  std::string text;
  for (int c = 1; c < 128; ++c) text += static_cast<char>(c);
  text += "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
  CHECK(parse_json(json_escape(text), "f").view().as_string() == text);
  CHECK(json_escape("a\"\\\n\x01") == R"("a\"\\\n\u0001")");
  CHECK(json_escape("a\xff\xc3") == "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
  CHECK(json_escape("\xed\xa0\x80") == "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST_CASE("io/json_write: numbers carry 17 digits and read back as the same bits") {
  for (const double v : {0.1, 1.0 / 3, 5.0, -2.5e-300, 1.7976931348623157e308, 0x1p-1074, -0.0}) {
    const double back = parse_json(json_number(v), "f").view().as_number();
    CHECK(back == v);
    CHECK(std::signbit(back) == std::signbit(v));
  }
  CHECK(json_number(0.1) == "0.10000000000000001");
  CHECK(json_number(5.0) == "5");
  CHECK(json_number(std::numeric_limits<double>::quiet_NaN()) == "null");
  CHECK(json_number(-std::numeric_limits<double>::infinity()) == "null");
  CHECK(json_number(std::int64_t{-3}) == "-3");
  CHECK(json_number(std::uint64_t{18446744073709551615u}) == "18446744073709551615");
}
