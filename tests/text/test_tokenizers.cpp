// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/text/any_tokenizer.hpp"

#include "support/error_of.hpp"
#include "support/growth.hpp"
#include "support/shared_data.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

struct ScoredText {
  std::string piece;
  float score = 0;
};

std::string raw_bytes(const auto& value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

std::string record(const ScoredText& p) {
  return raw_bytes(p.score) + raw_bytes(static_cast<std::int32_t>(p.piece.size())) + p.piece;
}

/// Control tokens, bytes, then `pieces`.
std::string llama2c_file(const std::vector<ScoredText>& pieces) {
  std::string out = raw_bytes(std::int32_t{27});
  out += record({"<unk>", 0}) + record({"\n<s>\n", 0}) + record({"\n</s>\n", 0});
  for (unsigned b = 0; b < 256; ++b) out += record({detail::byte_piece(b), 0});
  for (const ScoredText& p : pieces) out += record(p);
  return out;
}

const std::vector<ScoredText> small{{" ", -9},  {"a", -9},   {"b", -9},  {"\xc3\xa9", -9},
                                    {"ab", -1}, {"aba", -2}, {"ba", -1}, {" a", -5}};

std::vector<TokenId> ids_of(const auto& tokenizer, std::string_view text) {
  TokenStream out;
  tokenizer.encode(text, out);
  REQUIRE(out.bytes.size() == out.ids.size());
  std::uint64_t bytes = 0;
  for (const std::uint32_t n : out.bytes) bytes += n;
  REQUIRE(bytes == text.size());
  return out.ids;
}

/// The definition: look for the best pair, merge it, look again. Quadratic.
std::vector<std::string> naive_merges(const std::string& text,
                                      const std::vector<ScoredText>& pieces) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = std::max<std::size_t>(1, utf8_length(text, at));
    parts.push_back(text.substr(at, n));
    at += n;
  }
  for (;;) {
    std::size_t best = parts.size();
    float best_score = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      for (const ScoredText& p : pieces) {
        if (p.piece == parts[i] + parts[i + 1] && p.score > best_score) {
          best = i;
          best_score = p.score;
        }
      }
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

const std::string space = "\xe2\x96\x81";

}  // namespace

TEST_CASE("text/byte_tokenizer: all bytes round-trip, no BOS") {
  const ByteTokenizer t;
  std::string text;
  for (int i = 0; i < 256; ++i) text += static_cast<char>(i);
  const std::vector<TokenId> ids = ids_of(t, text);
  REQUIRE(ids.size() == 256);
  CHECK(ids[200] == 200);
  CHECK(t.decode(ids) == text);
  CHECK(!t.bos_id());
  CHECK(error_of([&] { t.piece(256); }).kind == ErrorClass::usage);
  CHECK(error_of([&] { t.piece(-1); }).kind == ErrorClass::usage);
}

TEST_CASE("text/llama2c_tokenizer: best score first, leftmost on ties, bytes where no piece is") {
  const std::string file = llama2c_file(small);
  const Llama2cTokenizer t{MemorySource(file)};
  constexpr TokenId first = 259;
  CHECK(t.vocab_size() == 267);
  CHECK(t.bos_id() == 1);
  CHECK(ids_of(t, "").empty());
  // " abab": "ab" and "ba" tie, so from the left ab|ab; then nothing merges with them.
  CHECK(ids_of(t, "abab") == std::vector<TokenId>{first, first + 4, first + 4});
  // " aba": "ab" first (leftmost of equal scores), then "aba".
  CHECK(ids_of(t, "aba") == std::vector<TokenId>{first, first + 5});
  CHECK(ids_of(t, "a") == std::vector<TokenId>{first + 7});
  CHECK(ids_of(t, "\xc3\xa9") == std::vector<TokenId>{first, first + 3});
  CHECK(ids_of(t, "\n") == std::vector<TokenId>{first, 3 + 10});
  CHECK(ids_of(t, "\xe2\x82\xac") == std::vector<TokenId>{first, 3 + 0xe2, 3 + 0x82, 3 + 0xac});
  CHECK(t.decode(std::vector<TokenId>{1, first + 7, first + 2}) == "ab");
  CHECK(t.piece(1).empty());
}

TEST_CASE("text/llama2c_tokenizer: any bytes round-trip, control tokens never come from text") {
  const std::string file = llama2c_file(small);
  const Llama2cTokenizer t{MemorySource(file)};
  const Random rng{.seed = 7};
  for (std::uint64_t i = 0; i < 2000; ++i) {
    std::string text;
    for (std::uint64_t k = 0; k < i % 23; ++k) {
      const std::uint64_t r = rng.bits(i << 32 | k);
      text += (r & 8) != 0 ? static_cast<char>(r >> 16) : "ab \xc3"[r & 3];
    }
    const std::vector<TokenId> ids = ids_of(t, text);
    REQUIRE(t.decode(ids) == text);
    for (const TokenId id : ids) REQUIRE(id >= 3);
  }
  for (const std::string text : {"<s>", "</s>", "<unk>", "\n<s>\n", "<0x0A>"}) {
    const std::vector<TokenId> ids = ids_of(t, text);
    CHECK(ids.size() == text.size() + 1);  // bytes, and the space before
    CHECK(t.decode(ids) == text);
  }
}

TEST_CASE("text/scored_merges: best scores, ties from the left, as the definition says") {
  std::vector<ScoredText> pieces;
  const Random rng{.seed = 11};
  std::uint64_t draw = 0;
  for (const std::string s : {"a", "b", "c", " "}) pieces.push_back({s, -99});
  while (pieces.size() < 60) {
    std::string s;
    for (std::uint64_t n = 2 + rng.bits(draw++) % 4; n > 0; --n) {
      s += "abc "[rng.bits(draw++) % 4];
    }
    bool fresh = true;
    for (const ScoredText& p : pieces) fresh = fresh && p.piece != s;
    // Few distinct scores, so that ties are common.
    if (fresh) pieces.push_back({s, -static_cast<float>(rng.bits(draw++) % 5)});
  }
  std::string vocab;
  for (const ScoredText& p : pieces) {
    std::string stored;
    for (const char c : p.piece) stored += c == ' ' ? space : std::string(1, c);
    vocab += stored + "\t" + std::to_string(p.score) + "\n";
  }
  vocab += "<unk>\t0\n";
  const std::string file = llama2c_file(pieces);
  const Llama2cTokenizer llama2c{MemorySource(file)};
  const VocabTokenizer lines{MemorySource(vocab)};
  for (std::uint64_t i = 1; i < 500; ++i) {
    std::string text;
    for (std::uint64_t k = 0; k < i % 90; ++k) text += "abc d"[rng.bits((i + 1) << 32 | k) % 5];
    const auto check = [&](const auto& tokenizer, const std::string& merged, TokenId first) {
      const std::vector<std::string> expected = naive_merges(merged, pieces);
      const std::vector<TokenId> ids = ids_of(tokenizer, text);
      REQUIRE(ids.size() == expected.size());
      for (std::size_t k = 0; k < ids.size(); ++k) {
        if (expected[k] == "d") {
          REQUIRE(ids[k] == (first == 0 ? 60 : 3 + 'd'));
        } else {
          REQUIRE(pieces.at(static_cast<std::size_t>(ids[k] - first)).piece == expected[k]);
        }
      }
    };
    check(lines, text, 0);
    if (!text.empty()) check(llama2c, " " + text, 259);
  }
}

TEST_CASE("text/scored_merges: one letter over and over stays far from quadratic") {
  std::vector<ScoredText> pieces{{" ", -1}, {"a", -1}};
  for (std::size_t n = 2; n <= 16; n *= 2) pieces.push_back({std::string(n, 'a'), -1});
  const std::string file = llama2c_file(pieces);
  const Llama2cTokenizer t{MemorySource(file)};
  CHECK(growth(1 << 14, [&](std::size_t size) {
          CHECK(ids_of(t, std::string(size, 'a')).size() == size / 16 + 1);
        }) < quadratic_growth);
}

TEST_CASE("text/llama2c_tokenizer: every truncation and damaged field is refused") {
  const std::string file = llama2c_file(small);
  std::size_t whole = 0;  // cuts between records leave a shorter, valid file
  for (std::size_t n = 0; n < file.size(); ++n) {
    const std::string cut = file.substr(0, n);
    const std::string outcome = outcome_of([&] { Llama2cTokenizer t{MemorySource(cut)}; });
    whole += outcome == "accepted" ? 1u : 0u;
    REQUIRE((outcome == "accepted" || outcome == "format"));
  }
  CHECK(whole == small.size());
  const std::size_t at = file.size() - record(small.back()).size();
  const auto damaged = [&](std::size_t offset, const std::string& bytes) {
    std::string bad = file;
    bad.replace(offset, bytes.size(), bytes);
    return error_of([&] { Llama2cTokenizer t{MemorySource(bad, "tok.bin")}; });
  };
  const ErrorInfo nan = damaged(at, raw_bytes(std::numeric_limits<float>::quiet_NaN()));
  CHECK(nan.kind == ErrorClass::format);
  CHECK(nan.where == "byte " + std::to_string(at));
  CHECK(nan.file == "tok.bin");
  CHECK(nan.field == "token 266");
  for (const std::int32_t length : {0, -1, 28, 2147483647}) {
    CHECK(damaged(at + 4, raw_bytes(length)).kind == ErrorClass::format);
  }
  CHECK(damaged(0, raw_bytes(std::int32_t{0})).kind == ErrorClass::format);
  CHECK(damaged(0, raw_bytes(std::int32_t{1 << 30})).kind == ErrorClass::limit);
  CHECK(error_of([&] {
          const std::string twice = file + record({"ab", -3});
          Llama2cTokenizer t{MemorySource(twice)};
        }).found.find("\"ab\" again") != std::string::npos);
  CHECK(damaged(at + 8, "\xff\xff").expected == "valid UTF-8");
}

TEST_CASE("text/vocab_tokenizer: spaces, white space without piece, unknown characters") {
  const std::string file = "<unk>\t0\n<s>\t0\n</s>\t0\n" + space + "\t-0\na\t-1\nb\t-2\nab\t-3\n";
  const VocabTokenizer t{MemorySource(file)};
  CHECK(t.vocab_size() == 7);
  CHECK(t.bos_id() == 1);
  CHECK(ids_of(t, "ab a\nb\tb") == std::vector<TokenId>{6, 3, 4, 3, 5, 3, 5});
  CHECK(ids_of(t, "\xc3\xa9z") == std::vector<TokenId>{0, 0});
  CHECK(ids_of(t, "\xff") == std::vector<TokenId>{0});
  CHECK(ids_of(t, space + " a") == std::vector<TokenId>{3, 3, 4});  // sizes 3, 1, 1
  CHECK(ids_of(t, "<s>") == std::vector<TokenId>{0, 0, 0});
  CHECK(t.decode(std::vector<TokenId>{1, 6, 3, 4, 2}) == "ab a");
}

TEST_CASE("text/vocab_tokenizer: byte pieces take what is unknown") {
  std::string file = "<unk>\t0\na\t-1\n" + space + "a\t-2\n";
  for (unsigned b = 0; b < 256; ++b) file += detail::byte_piece(b) + "\t0\n";
  const VocabTokenizer t{MemorySource(file)};
  CHECK(!t.bos_id());
  const std::string text = "a\xe2\x82\xac\xff \n<0x41>a";
  const std::vector<TokenId> ids = ids_of(t, text);
  CHECK(std::vector<TokenId>(ids.begin(), ids.begin() + 5) ==
        std::vector<TokenId>{1, 3 + 0xe2, 3 + 0x82, 3 + 0xac, 3 + 0xff});
  std::string spaced = text;
  spaced[6] = ' ';  // the newline
  CHECK(t.decode(ids) == spaced);
}

TEST_CASE("text/vocab_tokenizer: malformed files name the line") {
  const auto error = [](const std::string& file) {
    return error_of([&] { VocabTokenizer t{MemorySource(file, "x.vocab")}; });
  };
  CHECK(error("").kind == ErrorClass::format);
  CHECK(error("<!DOCTYPE html>").kind == ErrorClass::format);
  CHECK(error("a\t0\nb 1\n").where == "line 2");
  CHECK(error("a\t0\n\t1\n").where == "line 2");
  CHECK(error("a\t0\nb\tnan\n").where == "line 2");
  CHECK(error("a\t0\nb\tx\n").kind == ErrorClass::format);
  CHECK(error("a\t0\n\n").where == "line 2");
  CHECK(error("a\t0\na\t0\n").found == "the piece \"a\" again");
  CHECK(error("<s>\t0\n<s>\t0\n").where == "line 2");
  CHECK(error("\xff\t0\n").expected == "valid UTF-8");
  CHECK(error("a\t-1.5\nab\t-2.25\n").kind == ErrorClass::unsupported);
  CHECK(error("a\t-1.5\nb\t-2\r\nc\t-3").found == "no error");
  const VocabTokenizer no_unknown{MemorySource(std::string_view("a\t0\n"))};
  TokenStream out;
  CHECK(error_of([&] { no_unknown.encode("b", out); }).kind == ErrorClass::mismatch);
}

TEST_CASE("text/any_tokenizer: files are opened by name and content") {
  const TempDir dir;
  CHECK(open_tokenizer("bytes").vocab_size() == 256);
  CHECK(open_tokenizer(dir.write("t.bin", llama2c_file(small))).vocab_size() == 267);
  CHECK(open_tokenizer(dir.write("t.vocab", "<s>\t0\na\t-1\n")).bos_id() == 0);
  for (const char* name : {"tokenizer.json", "t.bin", "t"}) {
    const ErrorInfo e = error_of([&] { open_tokenizer(dir.write(name, "{\"version\":\"1.0\"}")); });
    CHECK(e.kind == ErrorClass::unsupported);
    CHECK(e.found.find("model") != std::string::npos);
    const std::string bpe =
        R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})";
    CHECK(ids_of(open_tokenizer(dir.write(name, bpe)), "abab") == std::vector<TokenId>{2, 2});
  }
  const ErrorInfo model =
      error_of([&] { open_tokenizer(dir.write("t.model", "\n\x0b\n\x05<unk>")); });
  CHECK(model.kind == ErrorClass::format);
  CHECK(model.where == "byte 1");
  CHECK(error_of([&] { open_tokenizer("bytes", {.pattern = "gpt2"}); }).kind == ErrorClass::usage);
  CHECK(error_of([&] { open_tokenizer(dir.write("t.txt", "hello")); }).kind ==
        ErrorClass::unsupported);
  CHECK(error_of([&] { open_tokenizer(dir.write("empty", "")); }).kind == ErrorClass::format);
  CHECK(error_of([&] { open_tokenizer(dir / "absent.vocab"); }).kind == ErrorClass::io);
  const TempDir folder;
  CHECK(error_of([&] { open_tokenizer(folder.path()); }).found == "a folder without a tokenizer");
  CHECK(find_tokenizer(folder.path()).empty());
  folder.write("vocab.json", "{\"a\":0}");
  CHECK(find_tokenizer(folder.path()).empty());  // without merges.txt
  folder.write("merges.txt", "");
  CHECK(find_tokenizer(folder.path()) == folder / "vocab.json");
  folder.write("tokenizer.model", "");
  CHECK(find_tokenizer(folder.path()) == folder / "tokenizer.model");
  folder.write("tokenizer.json", R"({"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}})");
  CHECK(open_tokenizer(folder.path()).vocab_size() == 2);
  CHECK(error_of([&] { check_vocab_size(512, "tok", 105, "model"); }).kind == ErrorClass::mismatch);
  CHECK(outcome_of([&] { check_vocab_size(105, "tok", 105, "model"); }) == "accepted");
}

TEST_CASE("text/llama2c_tokenizer: tok512.bin decodes and encodes the known-good 200 tokens") {
  const auto folder = shared_data("stories260K");
  if (!folder) {
    MESSAGE("skipped: no stories260K");
    return;
  }
  const AnyTokenizer t = open_tokenizer(*folder + "/tok512.bin");
  CHECK(t.vocab_size() == 512);
  std::vector<TokenId> ids;
  const std::string numbers =
      read_text(FileSource(*folder + "/expected_greedy_200_ids.txt"), 1 << 16);
  for (std::size_t at = 0; at < numbers.size();) {
    const std::size_t end = std::min(numbers.find_first_of(" \n", at), numbers.size());
    if (end > at) ids.push_back(std::stoi(numbers.substr(at, end - at)));
    at = end + 1;
  }
  REQUIRE(ids.size() == 201);
  const std::string text = read_text(FileSource(*folder + "/expected_greedy_200.txt"), 1 << 16);
  CHECK(t.decode(ids) == text);
  // The model's own output happens to be the tokenisation of its text.
  CHECK(ids_of(t, text) == std::vector<TokenId>(ids.begin() + 1, ids.end()));
}
