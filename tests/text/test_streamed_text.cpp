// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/text/streamed_text.hpp"

using namespace ropewalk;

TEST_CASE("text/streamed_text: characters come whole, other bytes as they are") {
  StreamedText text;
  CHECK(text.push("a") == "a");
  CHECK(text.push("\xe4") == "");
  CHECK(text.push("\xb8") == "");
  CHECK(text.push("\xad!") == "\xe4\xb8\xad!");
  CHECK(text.push("\xf0\x9f") == "");
  CHECK(text.push("\x98\x80") == "\xf0\x9f\x98\x80");
  CHECK(text.push("\x80") == "\x80");          // a stray continuation
  CHECK(text.push("\xff") == "\xff");          // no lead byte
  CHECK(text.push("\xe0\x80") == "\xe0\x80");  // overlong: no continuation makes it a character
  CHECK(text.push("\xf4\x90") == "\xf4\x90");  // beyond U+10FFFF
  CHECK(text.push("\xed\xa0") == "\xed\xa0");  // a surrogate
  CHECK(text.push("\xe4\xb8") == "");
  CHECK(text.push("x") == "\xe4\xb8x");
  CHECK(text.push("\xc3") == "");
  CHECK(text.finish() == "\xc3");
  CHECK(text.finish() == "");
}

TEST_CASE("text/streamed_text: the tail of every prefix of every character is held, no other") {
  for (std::uint32_t code = 0; code < 0x110000; code += code < 0x3000 ? 1 : 37) {
    if (code >= 0xd800 && code < 0xe000) continue;
    std::string c;
    const auto add = [&c](std::uint32_t byte) { c += static_cast<char>(byte); };
    if (code < 0x80) {
      add(code);
    } else if (code < 0x800) {
      add(0xc0 | code >> 6), add(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      add(0xe0 | code >> 12), add(0x80 | (code >> 6 & 0x3f)), add(0x80 | (code & 0x3f));
    } else {
      add(0xf0 | code >> 18), add(0x80 | (code >> 12 & 0x3f));
      add(0x80 | (code >> 6 & 0x3f)), add(0x80 | (code & 0x3f));
    }
    for (std::size_t n = 1; n <= c.size(); ++n) {
      REQUIRE(incomplete_utf8_tail("\xe4\xb8\xad" + c.substr(0, n)) == (n < c.size() ? n : 0));
    }
  }
}

TEST_CASE("text/streamed_text: stop strings cut the text before them, wherever pieces end") {
  const auto run = [](const std::vector<std::string>& stops, const std::vector<std::string>& pieces,
                      bool& stopped) {
    StreamedText text(stops);
    std::string out;
    for (const std::string& piece : pieces) out += text.push(piece);
    stopped = text.stopped();
    return out + text.finish();
  };
  bool stopped = false;
  CHECK(run({"END"}, {"ab", "E", "N", "D", "more"}, stopped) == "ab");
  CHECK(stopped);
  CHECK(run({"END"}, {"abENDmore"}, stopped) == "ab");
  CHECK(run({"END"}, {"ab", "E", "NX"}, stopped) == "abENX");
  CHECK(!stopped);
  CHECK(run({"END"}, {"ab", "EN"}, stopped) == "abEN");
  CHECK(run({"aab"}, {"a", "a", "a", "b"}, stopped) == "a");  // a match that starts later
  CHECK(run({"later", "xlat"}, {"xlate", "r"}, stopped) == "");
  CHECK(run({"b", "abc"}, {"a", "b"}, stopped) == "a");
  CHECK(run({"\n\n"}, {"one\n", "\ntwo"}, stopped) == "one");
  CHECK(run({"\xad"}, {"\xe4\xb8", "\xad!"}, stopped) == "\xe4\xb8");  // stop strings are bytes
  CHECK_THROWS_AS(StreamedText({"a", ""}), Error);
  // What is given out is given out at once.
  StreamedText text({"END"});
  CHECK(text.push("plain") == "plain");
  CHECK(text.push("THE") == "TH");
  CHECK(text.push("E") == "E");
}

TEST_CASE("text/streamed_text: random texts in random pieces against a search in the whole") {
  const Random random{.seed = 3};
  std::uint64_t next = 0;
  const auto below = [&](int n) { return static_cast<int>(random.uniform(next++) * n); };
  int cut = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    std::string whole;
    for (int i = below(30); i >= 0; --i) whole += "ab\xc3\xa4"[below(4)];
    std::vector<std::string> stops(static_cast<std::size_t>(1 + below(2)));
    for (std::string& stop : stops) {
      for (int i = below(4); i >= 0; --i) stop += "ab\xc3\xa4"[below(4)];
    }
    std::size_t first = std::string::npos, first_end = std::string::npos;
    // The stream stops at the first piece that completes a stop string.
    StreamedText text(stops);
    std::string out, given;
    for (std::size_t at = 0; at < whole.size() && !text.stopped();) {
      const auto size = static_cast<std::size_t>(1 + below(3));
      given += whole.substr(at, size);
      out += text.push(whole.substr(at, size));
      at += size;
      REQUIRE(given.starts_with(out));
    }
    out += text.finish();
    for (const std::string& stop : stops) {
      first = std::min(first, given.find(stop));
      first_end = std::min(first_end, whole.find(stop));
    }
    CHECK(out == given.substr(0, first));
    CHECK(text.stopped() == (first != std::string::npos));
    CHECK(text.stopped() == (first_end != std::string::npos));
    cut += text.stopped();
  }
  CHECK(cut > 300);
  CHECK(cut < 2900);
}
