// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/text/byte_tokenizer.hpp"
#include "ropewalk/text/documents.hpp"
#include "ropewalk/text/token_file.hpp"
#include "ropewalk/text/vocab_tokenizer.hpp"

#include "support/error_of.hpp"
#include "support/shared_data.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

using Parts = std::vector<std::string_view>;

TEST_CASE("text/documents: parts are stripped, empty ones dropped") {
  CHECK(split_documents("a|b|c", "|") == Parts{"a", "b", "c"});
  CHECK(split_documents(" \n a b \t|\r\n|  |\v\fc||", "|") == Parts{"a b", "c"});
  CHECK(split_documents("a<|e|>b<|e|", "<|e|>") == Parts{"a", "b<|e|"});
  CHECK(split_documents("|||", "|").empty());
  CHECK(split_documents("", "|").empty());
  CHECK(split_documents("aaaa", "aa").empty());
  CHECK(split_documents("\xc2\xa0x|", "|") == Parts{"\xc2\xa0x"});  // only ASCII white space
}

TEST_CASE("text/documents: without a separator a text is one document byte for byte") {
  CHECK(split_documents(" a\n", "") == Parts{" a\n"});
  CHECK(split_documents("", "").empty());
}

TEST_CASE("text/documents: BOS goes before each document as asked") {
  const VocabTokenizer with{MemorySource(std::string_view("<unk>\t0\n<s>\t0\na\t-1\nb\t-2\n"))};
  const auto encode = [&](const auto& tokenizer, BosPolicy bos) {
    EncodedDocuments out;
    encode_documents(tokenizer, {"ab", "b"}, bos, out);
    return out;
  };
  const EncodedDocuments on = encode(with, BosPolicy::automatic);
  CHECK(on.tokens.ids == std::vector<TokenId>{1, 2, 3, 1, 3});
  CHECK(on.tokens.bytes == std::vector<std::uint32_t>{0, 1, 1, 0, 1});
  CHECK(on.cu_seqlens == std::vector<std::int64_t>{0, 3, 5});
  CHECK(encode(with, BosPolicy::yes).tokens.ids == on.tokens.ids);
  CHECK(encode(with, BosPolicy::no).tokens.ids == std::vector<TokenId>{2, 3, 3});
  CHECK(encode(ByteTokenizer(), BosPolicy::automatic).tokens.ids ==
        std::vector<TokenId>{'a', 'b', 'b'});
  CHECK(error_of([&] { encode(ByteTokenizer(), BosPolicy::yes); }).kind == ErrorClass::usage);
  CHECK(parse_bos_policy("auto") == BosPolicy::automatic);
  CHECK(parse_bos_policy("yes") == BosPolicy::yes);
  CHECK(parse_bos_policy("no") == BosPolicy::no);
  CHECK(error_of([] { parse_bos_policy("maybe"); }).kind == ErrorClass::usage);
}

TEST_CASE("text/token_file: ids of both sizes, and the first wrong one") {
  const TempDir dir;
  const std::string u16("\1\0\2\0\377\0", 6), u32("\1\0\0\0\2\1\0\0", 8);
  const TokenFile a = read_token_file(dir.write("a.u16", u16), 256);
  CHECK(a.ids == std::vector<TokenId>{1, 2, 255});
  CHECK(a.hash == content_hash(std::as_bytes(std::span(u16.data(), u16.size()))));
  CHECK(read_token_file(dir.write("a.u32", u32), 259).ids == std::vector<TokenId>{1, 258});
  const ErrorInfo id = error_of([&] { read_token_file(dir / "a.u16", 255); });
  CHECK(id.kind == ErrorClass::format);
  CHECK(id.field == "id 2");
  CHECK(id.where == "byte 4");
  CHECK(id.found == "255");
  const ErrorInfo size = error_of([&] { read_token_file(dir.write("b.u32", u16), 256); });
  CHECK(size.kind == ErrorClass::format);
  CHECK(size.where == "byte 4");
  CHECK(error_of([&] { read_token_file(dir.write("b.u16", "123"), 99999); }).kind ==
        ErrorClass::format);
  CHECK(error_of([&] { read_token_file(dir.write("b.bin", u16), 256); }).kind == ErrorClass::usage);
  // An id that would be negative as int32.
  CHECK(error_of([&] {
          read_token_file(dir.write("c.u32", std::string("\1\0\0\0\377\377\377\377", 8)), 256);
        }).field == "id 1");
  CHECK(read_token_file(dir.write("empty.u16", ""), 256).ids.empty());
}

TEST_CASE("text/token_file: ids on both sides of a chunk boundary stay in order") {
  std::string file;
  for (std::uint32_t i = 0; i < 600000; ++i) {
    for (int b = 0; b < 4; ++b) file += static_cast<char>((i >> (8 * b)) & 0xff);
  }
  const TokenFile t = read_token_ids(MemorySource(file), 4, 600000);
  bool equal = t.ids.size() == 600000;
  for (std::size_t i = 0; i < t.ids.size(); ++i) equal = equal && t.ids[i] == static_cast<int>(i);
  CHECK(equal);
}

TEST_CASE("text/token_file: windows in order, the rest unused, too short is the caller's error") {
  const std::vector<TokenId> ids{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const auto windows = cut_windows(ids, 3);
  REQUIRE(windows.size() == 3);
  CHECK(windows[2].size() == 3);
  CHECK(windows[2][0] == 6);
  CHECK(cut_windows(ids, 3, 2).size() == 2);
  CHECK(cut_windows(ids, 3, 99).size() == 3);
  CHECK(cut_windows(ids, 10).size() == 1);
  const ErrorInfo e = error_of([&] { cut_windows(ids, 11); });
  CHECK(e.kind == ErrorClass::usage);
  CHECK(e.found == "10 tokens");
  for (const index_t n : {-1, 0, 1}) {
    CHECK(error_of([&] { cut_windows(ids, n); }).kind == ErrorClass::usage);
  }
}

TEST_CASE("text/documents: the sample text gives exactly the stored windows of babyllama-105") {
  const auto folder = shared_data("babyllama-105");
  const auto sample = shared_data("tinystories-text/tinystories_sample.txt");
  if (!folder || !sample) {
    MESSAGE("skipped: no babyllama-105 or tinystories-text");
    return;
  }
  const VocabTokenizer t(FileSource(*folder + "/tok105.vocab"));
  CHECK(t.vocab_size() == 105);
  CHECK(t.bos_id() == 1);
  const std::string text = read_text(FileSource(*sample), 1 << 24);
  Parts documents;
  for (const std::string_view d : split_documents(text, "<|endoftext|>")) {
    bool ascii = true;
    for (const char c : d) ascii = ascii && static_cast<signed char>(c) >= 0;
    if (ascii) documents.push_back(d);
  }
  EncodedDocuments out;
  encode_documents(t, documents, BosPolicy::automatic, out);
  const TokenFile expected = read_token_file(*folder + "/windows_6x1025.u16", t.vocab_size());
  REQUIRE(expected.ids.size() == 6 * 1025);
  const auto windows = cut_windows(out.tokens.ids, 1025, 6);
  const auto stored = cut_windows(expected.ids, 1025);
  REQUIRE(windows.size() == 6);
  for (std::size_t w = 0; w < 6; ++w) {
    CHECK(std::equal(windows[w].begin(), windows[w].end(), stored[w].begin(), stored[w].end()));
  }
}
