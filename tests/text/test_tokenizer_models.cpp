// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/text/any_tokenizer.hpp"

#include "support/error_of.hpp"
#include "support/shared_data.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

using Ids = std::vector<TokenId>;

std::vector<TokenId> ids_of(const auto& tokenizer, std::string_view text) {
  TokenStream out;
  tokenizer.encode(text, out);
  REQUIRE(out.bytes.size() == out.ids.size());
  std::uint64_t bytes = 0;
  for (const std::uint32_t n : out.bytes) bytes += n;
  if (!out.ids.empty()) REQUIRE(bytes == text.size());
  return out.ids;
}

std::string file_text(const std::string& path) {
  return read_text(FileSource(path), std::uint64_t{1} << 30);
}

std::vector<std::string> parts_of(const std::string& text, const std::string& separator) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + separator.size();
  }
  return out;
}

/// The 47 texts and ids that llama.cpp's tests use, in a folder of the data.
void check_vectors(const AnyTokenizer& t, const std::string& folder, bool round_trip) {
  const auto texts = parts_of(file_text(folder + "/test_vectors.inp"), "\n__ggml_vocab_test__\n");
  const auto lines = parts_of(file_text(folder + "/test_vectors.out"), "\n");
  REQUIRE(texts.size() == 47);
  REQUIRE(lines.size() == 47);  // the last text is empty
  for (std::size_t n = 0; n < 47; ++n) {
    Ids expected;
    std::istringstream numbers(lines[n]);
    for (TokenId id = 0; numbers >> id;) expected.push_back(id);
    INFO("text " << n);
    CHECK(ids_of(t, texts[n]) == expected);
    if (round_trip) CHECK(t.decode(expected) == texts[n]);
  }
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
std::string bytes_field(unsigned number, const std::string& bytes) {
  std::string out;
  put_varint(out, number << 3 | 2);
  put_varint(out, bytes.size());
  return out + bytes;
}
std::string number_field(unsigned number, std::uint64_t value) {
  std::string out;
  put_varint(out, number << 3);
  put_varint(out, value);
  return out;
}
std::string piece_field(const std::string& text, float score, unsigned type = 1) {
  std::string score_bytes(4, '\0');
  std::memcpy(score_bytes.data(), &score, 4);
  return bytes_field(1, bytes_field(1, text) + "\x15" + score_bytes + number_field(3, type));
}

const std::string space = "\xe2\x96\x81";
const std::string small_pieces =
    piece_field("<unk>", 0, 2) + piece_field("<s>", 0, 3) + piece_field("</s>", 0, 3) +
    piece_field(space, -9) + piece_field("a", -9) + piece_field("b", -9) + piece_field("ab", -1) +
    piece_field("ba", -1) + piece_field(space + "a", -2) + piece_field("USER", 0, 4);
std::string trainer(std::uint64_t type = 2, const std::string& more = "") {
  return bytes_field(2, number_field(3, type) + more);
}
std::string normalizer(bool prefix, bool collapse, const std::string& more = "") {
  return bytes_field(3, bytes_field(1, "identity") + number_field(3, prefix ? 1 : 0) +
                            number_field(4, collapse ? 1 : 0) + more);
}
BpeTokenizer sentencepiece(const std::string& file,
                           SpecialTokens special = SpecialTokens::as_text) {
  return read_sentencepiece(MemorySource(file, "t.model"), special);
}

}  // namespace

TEST_CASE("text/sentencepiece: scores, ties, dummy prefix, user-defined and control pieces") {
  const BpeTokenizer t = sentencepiece(small_pieces + trainer() + normalizer(true, false));
  CHECK(t.vocab_size() == 10);
  CHECK(t.bos_id() == 1);
  CHECK(ids_of(t, "").empty());
  CHECK(ids_of(t, "abab") == Ids{3, 6, 6});  // ab and ba tie: from the left
  CHECK(ids_of(t, "bab") == Ids{3, 7, 5});
  CHECK(ids_of(t, "aa") == Ids{8, 4});
  CHECK(ids_of(t, "bUSERab") == Ids{3, 5, 9, 6});
  CHECK(ids_of(t, "<s>zzb") == Ids{3, 0, 5});  // unknown characters side by side are one
  CHECK(ids_of(t, "a  a ") == Ids{8, 3, 8, 3});
  CHECK(t.decode(Ids{1, 8, 6, 2}) == "aab");
  CHECK(t.piece(1).empty());
  CHECK(t.piece(0) == " \xe2\x81\x87 ");
  CHECK(ids_of(sentencepiece(small_pieces + trainer() + normalizer(true, false),
                             SpecialTokens::as_ids),
               "b<s>") == Ids{3, 5, 1});
  const BpeTokenizer collapsing = sentencepiece(small_pieces + trainer() + normalizer(true, true));
  CHECK(ids_of(collapsing, "  a   a ") == Ids{8, 8});
  const BpeTokenizer plain = sentencepiece(small_pieces + trainer() + normalizer(false, false));
  CHECK(ids_of(plain, "ab a") == Ids{6, 8});
  CHECK(plain.decode(Ids{8}) == " a");
}

TEST_CASE("text/sentencepiece: byte fallback takes any bytes") {
  std::string file = small_pieces;
  for (unsigned b = 0; b < 256; ++b) file += piece_field(detail::byte_piece(b), 0, 6);
  const BpeTokenizer t =
      sentencepiece(file + trainer(2, number_field(35, 1)) + normalizer(true, false));
  CHECK(ids_of(t, "a\xc3\xa9\xff") == Ids{8, 10 + 0xc3, 10 + 0xa9, 10 + 0xff});
  const Random rng{.seed = 5};
  for (std::uint64_t i = 0; i < 2000; ++i) {
    std::string text;
    for (std::uint64_t k = 0; k < i % 40; ++k) {
      const std::uint64_t r = rng.bits(i << 32 | k);
      text += (r & 4) != 0 ? "ab U"[r & 3] : static_cast<char>(r >> 16);
    }
    if (text.find(space) != std::string::npos) continue;  // that one reads as a space
    REQUIRE(t.decode(ids_of(t, text)) == text);
  }
}

TEST_CASE("text/sentencepiece: what is not supported or damaged is refused") {
  const std::string good = small_pieces + trainer() + normalizer(true, true);
  struct Bad {
    std::string file;
    ErrorClass kind;
    const char* mentions;
  };
  using enum ErrorClass;
  const Bad table[] = {
      {"", format, "empty"},
      {small_pieces + normalizer(true, true), unsupported, "unigram"},
      {small_pieces + trainer(1), unsupported, "unigram"},
      {small_pieces + trainer(3), unsupported, "words"},
      {small_pieces + trainer(4), unsupported, "characters"},
      {small_pieces + trainer(77), unsupported, "77"},
      {small_pieces + trainer(2, number_field(24, 1)), unsupported, "suffix"},
      {small_pieces + trainer(2, number_field(35, 1)), format, "0 byte pieces"},
      {good + bytes_field(3, bytes_field(1, "nmt_nfkc") + bytes_field(2, "abc")), unsupported,
       "nmt_nfkc"},
      {trainer(), format, "empty"},
      {good + piece_field("ab", -1), format, "\"ab\" again"},
      {good + piece_field("", -1), format, "piece 10"},
      {good + piece_field("\xff", -1), format, "UTF-8"},
      {good + piece_field(std::string(1025, 'a'), -1), limit, "1025"},
      {good + piece_field("aa", std::numeric_limits<float>::infinity()), format, "finite"},
      {good + piece_field("aa", 0, 5), unsupported, "unused"},
      {good + piece_field("aa", 0, 7), format, "type 7"},
      {good + piece_field("aa", 0, 2), format, "second unknown"},
      {good + piece_field("<0xZZ>", 0, 6), format, "<0xZZ>"},
      {good + piece_field("ax", -3), unsupported, "\"x\""},
      {"IQ== 0\nIg== 1\n", unsupported, "tiktoken"},
      {std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), format, "length"},
      {std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12), format, "64 bits"},
      {good + "\x0b", format, "wire type 3"},
      {good + std::string("\x00\x00", 2), format, "field number 0"},
      {good + "\x08\x01", format, "another type"},
      {good + "\x15\x01", format, "end of the message"},
  };
  CHECK(outcome_of([&] { sentencepiece(good); }) == "accepted");
  for (const Bad& bad : table) {
    INFO(bad.mentions);
    const ErrorInfo e = error_of([&] { sentencepiece(bad.file); });
    INFO(to_text(e));
    CHECK(e.kind == bad.kind);
    CHECK(to_text(e).find(bad.mentions) != std::string::npos);
  }
  for (std::size_t n = 0; n < good.size(); ++n) {
    outcome_of([&] { sentencepiece(good.substr(0, n)); });  // an Error or a shorter model
    for (const char byte : {'\0', '\x7f', '\x80', '\xff'}) {
      std::string damaged = good;
      damaged[n] = byte;
      outcome_of([&] { ids_of(sentencepiece(damaged), "ab <s>\xff"); });
    }
  }
}

TEST_CASE("text/vocab_merges: the pattern is named, by option or by tokenizer_config.json") {
  const TempDir dir;
  // The bytes of "ab 1\n", two merges, and a token that nothing leads to.
  const std::string path = dir.write(
      "vocab.json",
      R"({"a":0,"b":1,"\u0120":2,"1":3,"\u010a":4,"ab":5,"\u0120ab":6,"11":7,"<|end|>":8})");
  dir.write("merges.txt", "#version: 0.2\na b\n\xc4\xa0 ab\n1 1\n");
  const auto open = [&](const std::string& pattern,
                        SpecialTokens special = SpecialTokens::as_text) {
    return open_tokenizer(path, {.special_tokens = special, .pattern = pattern});
  };
  const ErrorInfo e = error_of([&] { open(""); });
  CHECK(e.kind == ErrorClass::usage);
  CHECK(e.field == "tokenizer-pattern");
  CHECK(e.expected.find("gpt2, qwen2, llama3") != std::string::npos);
  CHECK(ids_of(open("gpt2"), "ab ab11\n") == Ids{5, 6, 7, 4});
  CHECK(ids_of(open("qwen2"), "ab ab11\n") == Ids{5, 6, 3, 3, 4});  // one digit a word
  CHECK(ids_of(open("llama3"), "ab11") == Ids{5, 7});
  CHECK(ids_of(open("."), "ab11") == Ids{0, 1, 3, 3});
  CHECK(error_of([&] { open("("); }).kind == ErrorClass::format);
  CHECK(error_of([&] { ids_of(open("gpt2"), "abc"); }).kind == ErrorClass::mismatch);
  CHECK(ids_of(open("gpt2", SpecialTokens::as_ids), "ab<|end|>ab") == Ids{5, 8, 5});
  CHECK(open("gpt2").piece(8).empty());
  CHECK(!open("gpt2").bos_id());

  dir.write("tokenizer_config.json",
            R"({"tokenizer_class":"Qwen2TokenizerFast","add_bos_token":true,"bos_token":"<|x|>",
            "added_tokens_decoder":{"11":{"content":"<|x|>","special":true},
            "12":{"content":"b1","special":false}}})");
  CHECK(ids_of(open(""), "11b1a") == Ids{3, 3, 12, 0});
  CHECK(ids_of(open("gpt2"), "11") == Ids{7});  // the option wins
  CHECK(open("").bos_id() == 11);
  CHECK(open("").vocab_size() == 13);
  dir.write("tokenizer_config.json", R"({"tokenizer_class":"LlamaTokenizer"})");
  CHECK(error_of([&] { open(""); }).found == "the tokenizer_class \"LlamaTokenizer\"");
  dir.write("tokenizer_config.json", "{}");

  const auto with_merges = [&](const std::string& merges) {
    dir.write("merges.txt", merges);
    return error_of([&] { open("gpt2"); });
  };
  CHECK(with_merges("a b\r\n\xc4\xa0 ab\r\n1 1\r\n\r\n").found == "no error");
  CHECK(with_merges("a b\nab").where == dir / "merges.txt: line 2");
  CHECK(with_merges("a b\n\n1 1\n").found == "a blank line");
  CHECK(with_merges("a b\na b\n").found == "\"a\" and \"b\" again");
  CHECK(with_merges("a b\nb 1\n").found == "\"b1\", which is no token");
  CHECK(with_merges("a b\nb  1\n").kind == ErrorClass::format);
  CHECK(error_of([&] { open_tokenizer(dir / "merges.txt"); }).fix.find("vocab.json") !=
        std::string::npos);
}

TEST_CASE("text/tokenizer_json: GPT-2, GPT-NeoX and Qwen2 give the ids of the 47 published texts") {
  const auto gpt2 = shared_data("tokenizer-gpt2");
  const auto neox = shared_data("tokenizer-gpt-neox-20b");
  const auto qwen2 = shared_data("tokenizer-qwen2");
  if (!gpt2 || !neox || !qwen2) {
    MESSAGE("skipped: no tokenizer-gpt2, tokenizer-gpt-neox-20b or tokenizer-qwen2");
    return;
  }
  CHECK(error_of([&] { open_tokenizer(*gpt2); }).kind == ErrorClass::usage);
  check_vectors(open_tokenizer(*gpt2, {.pattern = "gpt2"}), *gpt2, true);
  check_vectors(open_tokenizer(*neox), *neox, true);
  check_vectors(open_tokenizer(*qwen2 + "/vocab.json", {.pattern = "qwen2"}), *qwen2, true);
}

TEST_CASE("text/sentencepiece: Mistral's tokenizer.json and tokenizer.model agree") {
  const auto folder = shared_data("tokenizer-mistral");
  const auto texts = shared_data("tokenizer-gpt2/test_vectors.inp");
  const auto english = shared_data("books-en/moby_dick.txt");
  const auto chinese = shared_data("book-zh/sanguo_yanyi.txt");
  if (!folder || !texts || !english || !chinese) {
    MESSAGE("skipped: no tokenizer-mistral, tokenizer-gpt2, books-en or book-zh");
    return;
  }
  const AnyTokenizer json = open_tokenizer(*folder);
  const AnyTokenizer model = open_tokenizer(*folder + "/tokenizer.model");
  CHECK(json.vocab_size() == 32002);
  CHECK(model.vocab_size() == 32000);
  CHECK(!json.bos_id());  // its template has none
  CHECK(model.bos_id() == 1);
  auto parts = parts_of(file_text(*texts), "\n__ggml_vocab_test__\n");
  for (const std::string& path : {*english, *chinese}) {
    const std::string book = file_text(path).substr(0, 300000);
    for (std::size_t at = 0; at < book.size(); at += 1777) parts.push_back(book.substr(at, 1777));
    parts.push_back(book);
  }
  for (const std::string& text : parts) {
    const Ids ids = ids_of(json, text);
    REQUIRE(ids == ids_of(model, text));
    REQUIRE(json.decode(ids) == text);
    REQUIRE(model.decode(ids) == text);
  }
}

TEST_CASE("text/sentencepiece: tok105.model is tok105.vocab and what the model asks for besides") {
  const auto folder = shared_data("babyllama-105");
  const auto stories = shared_data("tinystories-text/tinystories_sample.txt");
  if (!folder || !stories) {
    MESSAGE("skipped: no babyllama-105 or tinystories-text");
    return;
  }
  const AnyTokenizer model = open_tokenizer(*folder + "/tok105.model");
  const AnyTokenizer vocab = open_tokenizer(*folder + "/tok105.vocab");
  CHECK(model.vocab_size() == 105);
  CHECK(model.bos_id() == vocab.bos_id());
  // The model puts a space first and makes runs of spaces one; the .vocab file does not say so. And
  // there a newline is a space, which the model does not know.
  std::string text = file_text(*stories).substr(0, 50000);
  std::string plain;
  for (const char c : text) {
    const bool blank = c == '\n' || c == ' ' || static_cast<unsigned char>(c) >= 0x80;
    if (!blank) plain += c;
    if (blank && !plain.empty() && plain.back() != ' ') plain += ' ';
  }
  while (plain.back() == ' ') plain.pop_back();
  Ids expected = ids_of(vocab, plain);
  expected.insert(expected.begin(), ids_of(vocab, " ").front());
  CHECK(ids_of(model, plain) == expected);
  CHECK(model.decode(expected) == plain);
}

TEST_CASE("text/tokenizer_json: TinyStories-656K and MiniMind load") {
  const auto stories = shared_data("tinystories-656k-hf");
  const auto minimind = shared_data("tokenizer-minimind");
  const auto sample = shared_data("tinystories-text/tinystories_sample.txt");
  const auto chinese = shared_data("book-zh/sanguo_yanyi.txt");
  if (!stories || !minimind || !sample || !chinese) {
    MESSAGE("skipped: no tinystories-656k-hf, tokenizer-minimind, tinystories-text or book-zh");
    return;
  }
  const AnyTokenizer t = open_tokenizer(*stories);
  CHECK(t.vocab_size() == 2048);
  CHECK(t.bos_id() == 1);
  const std::string text = "Once upon a time, there was a little girl.";
  const Ids ids = ids_of(t, text);
  CHECK(t.decode(ids) == text);
  CHECK(ids.size() < 14);  // pieces hold several words
  const AnyTokenizer m = open_tokenizer(*minimind);
  CHECK(m.vocab_size() == 6400);
  for (const std::string& path : {*sample, *chinese}) {
    const std::string whole = file_text(path).substr(0, 200000);
    CHECK(m.decode(ids_of(m, whole)) == whole);
  }
}
