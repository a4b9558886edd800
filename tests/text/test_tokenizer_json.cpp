// SPDX-License-Identifier: Apache-2.0
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/text/tokenizer_json.hpp"

#include "golden/tokenizer_ids.hpp"
#include "support/error_of.hpp"
#include "support/growth.hpp"

using namespace ropewalk;

namespace {

BpeTokenizer read(std::string_view json, SpecialTokens special = SpecialTokens::as_text) {
  return read_tokenizer_json(MemorySource(json, "tokenizer.json"), special);
}

/// Ids of a text, after the check that the sizes of its tokens add up.
std::vector<TokenId> ids_of(const BpeTokenizer& tokenizer, std::string_view text) {
  TokenStream out;
  tokenizer.encode(text, out);
  REQUIRE(out.bytes.size() == out.ids.size());
  std::uint64_t bytes = 0;
  for (const std::uint32_t n : out.bytes) bytes += n;
  if (!out.ids.empty()) REQUIRE(bytes == text.size());
  bool in_range = true;
  for (const TokenId id : out.ids) in_range = in_range && id >= 0 && id < tokenizer.vocab_size();
  REQUIRE(in_range);
  return out.ids;
}

std::string joined(const std::vector<TokenId>& ids) {
  std::string out;
  for (const TokenId id : ids) out += (out.empty() ? "" : " ") + std::to_string(id);
  return out;
}

const golden::TokenizerCase& case_named(std::string_view name) {
  for (const golden::TokenizerCase& c : golden::tokenizer_cases) {
    if (c.name == name) return c;
  }
  FAIL("no case " << name);
  return golden::tokenizer_cases[0];
}

/// A small tokenizer with a changed member: `path` as "model/vocab", `value` as JSON, "" removes.
std::string changed(std::string_view path, std::string_view value) {
  const std::string vocab =
      R"({"a":0,"b":1,"ab":2,"\u2581":3,"<unk>":4,"\u2581a":5,"<s>":6,"c":7})";
  std::vector<std::pair<std::string, std::string>> top = {
      {"version", R"("1.0")"},
      {"added_tokens", R"([{"id":6,"content":"<s>","special":true,"normalized":false}])"},
      {"normalizer", "null"},
      {"pre_tokenizer", R"({"type":"Metaspace","replacement":"\u2581"})"},
      {"post_processor", "null"},
      {"decoder", R"({"type":"Metaspace","replacement":"\u2581"})"}};
  std::vector<std::pair<std::string, std::string>> model = {{"type", R"("BPE")"},
                                                            {"vocab", vocab},
                                                            {"merges", R"(["a b","\u2581 a"])"},
                                                            {"unk_token", R"("<unk>")"}};
  const auto set = [&](auto& members, const std::string& key) {
    for (auto& [name, text] : members) {
      if (name == key) {
        text = value;
        return;
      }
    }
    members.emplace_back(key, value);
  };
  const auto object = [](const auto& members) {
    std::string out = "{";
    for (const auto& [name, text] : members) {
      if (text.empty()) continue;
      out += (out.size() > 1 ? ",\"" : "\"") + name + "\":" + text;
    }
    return out + "}";
  };
  if (path.starts_with("model/")) {
    set(model, std::string(path.substr(6)));
  } else if (path == "model") {
    return "{\"version\":\"1.0\",\"model\":" + std::string(value) + "}";
  } else {
    set(top, std::string(path));
  }
  top.emplace_back("model", object(model));
  return object(top);
}

}  // namespace

TEST_CASE("text/tokenizer_json: ids of the reference library for every component") {
  std::size_t decoded = 0;
  for (const golden::TokenizerCase& c : golden::tokenizer_cases) {
    INFO(c.name);
    const bool has_decoder = c.json.find("\"decoder\": null") == std::string_view::npos;
    for (const SpecialTokens special : {SpecialTokens::as_text, SpecialTokens::as_ids}) {
      const BpeTokenizer t = read(c.json, special);
      CHECK(t.bos_id().value_or(-1) == c.bos);
      std::istringstream expected(
          std::string(special == SpecialTokens::as_text ? c.ids_as_text : c.ids_as_ids));
      std::size_t n = 0;
      for (std::string line; std::getline(expected, line); ++n) {
        INFO("text " << n);
        const std::vector<TokenId> ids = ids_of(t, golden::tokenizer_texts[n]);
        CHECK(joined(ids) == line);
        // Without a decoder the reference library puts spaces between the tokens; the space that a
        // byte-level tokenizer put first it does not take off, which decode() does.
        if (n == 11 && special == SpecialTokens::as_text && has_decoder) {
          const bool prefixed = c.name == "byte_level_prefix_nfc_bos";
          CHECK((prefixed ? " " : "") + t.decode(ids) == c.decoded);
          ++decoded;
        }
      }
      CHECK(n == std::size(golden::tokenizer_texts));
    }
  }
  CHECK(decoded >= 5);
}

TEST_CASE("text/tokenizer_json: byte-level text round-trips, also what is not UTF-8") {
  const Random rng{.seed = 3};
  const std::string words[] = {"the ", "\xc3\xa9", "\xe4\xb8\xad", "12",
                               "\n",   "'ll",      "[CTL]",        "<w>"};
  for (const char* name : {"byte_level", "llama3_ignore_merges"}) {
    const BpeTokenizer t = read(case_named(name).json);
    for (std::uint64_t i = 0; i < 3000; ++i) {
      std::string text;
      for (std::uint64_t k = 0; k < i % 37; ++k) {
        const std::uint64_t r = rng.bits(i << 32 | k);
        text += (r & 8) != 0 ? std::string(1, static_cast<char>(r >> 16)) : words[r & 7];
      }
      const std::vector<TokenId> ids = ids_of(t, text);
      REQUIRE(t.decode(ids) == text);
      for (const TokenId id : ids) REQUIRE(!t.piece(id).empty());  // no control ids
    }
  }
}

TEST_CASE("text/tokenizer_json: random bytes go through every kind of tokenizer") {
  const Random rng{.seed = 4};
  for (const golden::TokenizerCase& c : golden::tokenizer_cases) {
    INFO(c.name);
    const BpeTokenizer t = read(c.json, SpecialTokens::as_ids);
    for (std::uint64_t i = 0; i < 200; ++i) {
      std::string text;
      for (std::uint64_t k = 0; k < i % 50; ++k) {
        text += static_cast<char>(rng.bits(i << 32 | k) >> ((i % 3) * 8));
      }
      ids_of(t, text);
    }
  }
}

TEST_CASE("text/tokenizer_json: fallback and prepended space round-trip byte for byte") {
  const BpeTokenizer t =
      read(R"({"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0,"\u2581":1,)" +
           [] {
             std::string bytes;
             for (unsigned b = 0; b < 256; ++b) {
               constexpr char hex[] = "0123456789ABCDEF";
               bytes += std::string(b == 0 ? "" : ",") + "\"<0x" + hex[b >> 4] + hex[b & 15] +
                        ">\":" + std::to_string(b + 2);
             }
             return bytes;
           }() +
           R"(},"merges":[]},"normalizer":{"type":"Sequence","normalizers":[
    {"type":"Prepend","prepend":"\u2581"},
    {"type":"Replace","pattern":{"String":" "},"content":"\u2581"}]},
    "decoder":{"type":"Sequence","decoders":[
    {"type":"Replace","pattern":{"String":"\u2581"},"content":" "},
    {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}})");
  TokenStream out;
  t.encode("a \xff\n", out);
  CHECK(out.ids == std::vector<TokenId>{1, 0, 1, 2 + 0xff, 2 + '\n'});
  CHECK(out.bytes == std::vector<std::uint32_t>{0, 1, 1, 1, 1});
  for (const std::string& text : {std::string(" a"), std::string("  "), std::string("\xe2\x82\xac"),
                                  std::string("<0x41>"), std::string("\0\x80", 2)}) {
    CHECK(t.decode(ids_of(t, text)) == text);
  }
}

TEST_CASE("text/tokenizer_json: BOS, control tokens and holes have no piece of text") {
  const BpeTokenizer t = read(
      changed("post_processor",
              R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
      {"Sequence":{"id":"A","type_id":0}}],"pair":[],
      "special_tokens":{"<s>":{"id":"<s>","ids":[6],"tokens":["<s>"]}}})"));
  CHECK(t.bos_id() == 6);
  CHECK(t.piece(6).empty());
  CHECK(ids_of(t, "<s>") == std::vector<TokenId>{3, 4, 4, 4});  // no "<", "s" or ">"
  CHECK(t.decode(std::vector<TokenId>{6, 5, 1}) == "ab");
  const BpeTokenizer ids = read(changed("version", R"("1.0")"), SpecialTokens::as_ids);
  CHECK(ids_of(ids, "a<s>b") == std::vector<TokenId>{5, 6, 3, 1});
  CHECK(ids.piece(6) == "<s>");
  // Merges that lead to a control token are not made either.
  const std::string merged =
      changed("model/vocab", R"({"a":0,"b":1,"ab":6,"\u2581":3,"<unk>":4,"\u2581a":5})");
  std::string added = merged;
  added.replace(added.find("\"<s>\""), 5, "\"ab\"");
  CHECK(ids_of(read(added), "ab") == std::vector<TokenId>{5, 1});
  CHECK(ids_of(read(added), "b ab") == std::vector<TokenId>{3, 1, 5, 1});
  const BpeTokenizer holes =
      read(changed("model/vocab", R"({"a":0,"b":1,"ab":20,"\u2581":3,"<unk>":4,"\u2581a":5})"));
  CHECK(holes.vocab_size() == 21);
  CHECK(error_of([&] { holes.piece(12); }).kind == ErrorClass::usage);
  CHECK(error_of([&] { holes.piece(21); }).kind == ErrorClass::usage);
}

TEST_CASE("text/tokenizer_json: malformed and unsupported files are refused with their place") {
  struct Bad {
    const char* path;
    std::string value;
    ErrorClass kind;
    const char* mentions;
  };
  using enum ErrorClass;
  const std::string deep = [] {
    std::string open, close;
    for (int i = 0; i < 1000; ++i) {
      open += R"({"type":"Sequence","normalizers":[)";
      close += "]}";
    }
    return open + close;
  }();
  std::string many_tokens = "[";
  for (int i = 0; i < 65537; ++i) {
    many_tokens += (i == 0 ? "" : ",") + std::string(R"({"id":)") + std::to_string(i + 100) +
                   R"(,"content":"t)" + std::to_string(i) + "\"}";
  }
  const Bad table[] = {
      {"model", "{}", unsupported, "without a type"},
      {"model", R"({"type":"Unigram"})", unsupported, "Unigram"},
      {"model", R"({"type":"WordPiece"})", unsupported, "WordPiece"},
      {"model", R"({"type":7})", config, "/model/type"},
      {"model", "[]", config, "/model"},
      {"model/vocab", "", config, "vocab"},
      {"model/vocab", "[]", config, "/model/vocab"},
      {"model/vocab", "{}", format, "/model/vocab"},
      {"model/vocab", R"({"a":-1})", format, "/model/vocab/a"},
      {"model/vocab", R"({"a":1.5})", format, "/model/vocab/a"},
      {"model/vocab", R"({"a":"0"})", format, "/model/vocab/a"},
      {"model/vocab", R"({"a":0,"b":2147483647})", limit, "2147483647"},
      {"model/vocab", R"({"a":0,"b":1099511627776})", format, "1099511627776"},
      {"model/vocab", R"({"a":0,"b":0})", format, "\"a\" and \"b\""},
      {"model/vocab", R"({"":0})", format, "empty"},
      {"model/vocab", "{\"" + std::string(65537, 'x') + "\":0}", limit, "65536"},
      {"model/merges", "", config, "merges"},
      {"model/merges", "{}", format, "/model/merges"},
      {"model/merges", R"(["a"])", format, "/model/merges/0"},
      {"model/merges", R"(["a b","a b c"])", format, "/model/merges/1"},
      {"model/merges", R"([["a"]])", format, "/model/merges/0"},
      {"model/merges", R"([["a",1]])", format, "/model/merges/0"},
      {"model/merges", R"([["a","b","c"]])", format, "/model/merges/0"},
      {"model/merges", R"([" b"])", format, "empty part"},
      {"model/merges", R"([7])", format, "/model/merges/0"},
      {"model/merges", R"(["a z"])", format, "\"z\""},
      {"model/merges", R"(["b a"])", format, "\"ba\""},
      {"model/merges", R"(["a b","a b"])", format, "again"},
      {"model/unk_token", R"("nope")", format, "/model/unk_token"},
      {"model/unk_token", "3", config, "/model/unk_token"},
      {"model/dropout", "0.1", unsupported, "dropout"},
      {"model/continuing_subword_prefix", R"("##")", unsupported, "continuing_subword_prefix"},
      {"model/end_of_word_suffix", R"("</w>")", unsupported, "end_of_word_suffix"},
      {"model/byte_fallback", R"("yes")", config, "/model/byte_fallback"},
      {"model/new_idea", "1", unsupported, "new_idea"},
      {"new_part", "1", unsupported, "new_part"},
      {"version", R"("2.0")", unsupported, "/version"},
      {"added_tokens", "{}", config, "/added_tokens"},
      {"added_tokens", R"([{"content":"x"}])", config, "/added_tokens/0"},
      {"added_tokens", R"([{"id":9}])", config, "content"},
      {"added_tokens", R"([{"id":9,"content":""}])", format, "content"},
      {"added_tokens", R"([{"id":-1,"content":"x"}])", format, "/added_tokens/0/id"},
      {"added_tokens", R"([{"id":0,"content":"x"}])", format, "id 0"},
      {"added_tokens", R"([{"id":9,"content":"a"}])", format, "\"a\""},
      {"added_tokens", R"([{"id":9,"content":"x"},{"id":10,"content":"x"}])", format, "\"x\""},
      {"added_tokens", R"([{"id":9,"content":"x"},{"id":9,"content":"x"}])", format, "\"x\""},
      {"added_tokens", R"([{"id":9,"content":"x","lstrip":1}])", config, "/added_tokens/0/lstrip"},
      {"added_tokens", "[{\"id\":9,\"content\":\"" + std::string(1025, 'x') + "\"}]", limit,
       "1024"},
      {"added_tokens", many_tokens + "]", limit, "65537"},
      {"normalizer", R"({"type":"Precompiled"})", unsupported, "Precompiled"},
      {"normalizer", R"({"type":"Nmt"})", unsupported, "Nmt"},
      {"normalizer", R"({"type":"NFC","x":1})", unsupported, "\"x\""},
      {"normalizer", R"({"type":"Replace","content":"a"})", config, "pattern"},
      {"normalizer", R"({"type":"Replace","pattern":{"Regex":"("},"content":""})", format,
       "pattern"},
      {"normalizer", R"({"type":"Replace","pattern":{"String":""},"content":""})", format, "empty"},
      {"normalizer", deep, limit, "deeper"},
      {"pre_tokenizer", R"({"type":"BertPreTokenizer"})", unsupported, "BertPreTokenizer"},
      {"pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Odd"})", format,
       "Odd"},
      {"pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"[a&&b]"},"behavior":"Removed"})",
       unsupported, "&&"},
      {"pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"\\h"},"behavior":"Removed"})",
       unsupported, "pattern"},
      {"pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"(?m)a"},"behavior":"Removed"})",
       unsupported, "pattern"},
      {"pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"a{1,2}+"},"behavior":"Removed"})",
       unsupported, "}+"},
      {"pre_tokenizer",
       R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})",
       unsupported, "ByteLevel"},
      {"pre_tokenizer", R"({"type":"Metaspace","replacement":"ab"})", format, "replacement"},
      {"pre_tokenizer", R"({"type":"Metaspace","replacement":"_","prepend_scheme":"often"})",
       format, "often"},
      {"pre_tokenizer", "[]", config, "/pre_tokenizer"},
      {"decoder", R"({"type":"WordPiece"})", unsupported, "WordPiece"},
      {"decoder", R"({"type":"ByteLevel"})", unsupported, "ByteLevel"},
      {"decoder", R"({"type":"Strip","content":"x","start":1,"stop":0})", unsupported, "Strip"},
      {"post_processor", R"({"type":"RobertaProcessing"})", unsupported, "RobertaProcessing"},
      {"post_processor",
       R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<t>"}}],"special_tokens":{}})",
       format, "<t>"},
      {"post_processor",
       R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}],"special_tokens":{"<s>":{"ids":[99]}}})",
       format, "99"},
      {"post_processor",
       R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}],"special_tokens":{"<s>":{"ids":[6,0]}}})",
       unsupported, "two tokens"},
  };
  CHECK(outcome_of([] { read(changed("version", R"("1.0")")); }) == "accepted");
  for (const Bad& bad : table) {
    INFO(bad.path << " = " << bad.value.substr(0, 100));
    const ErrorInfo e = error_of([&] { read(changed(bad.path, bad.value)); });
    INFO(to_text(e));
    CHECK(e.kind == bad.kind);
    CHECK(e.file == "tokenizer.json");
    CHECK(to_text(e).find(bad.mentions) != std::string::npos);
  }
  // A byte-level name that stands for no bytes; some byte tokens, but not all.
  CHECK(error_of([] {
          std::string json = changed("pre_tokenizer", R"({"type":"ByteLevel"})");
          read(json.replace(json.rfind("\"decoder\""), 9, "\"padding\""));
        }).found == "\"\\xe2\\x96\\x81\"");
  std::string some = changed("model/byte_fallback", "true");
  some.replace(some.find("\"c\":7"), 5, "\"<0x00>\":7");
  CHECK(error_of([&] { read(some); }).kind == format);
}

TEST_CASE(
    "text/tokenizer_json: every truncation and random damage ends in an error or a tokenizer") {
  const std::string whole = changed("version", R"("1.0")");
  for (std::size_t n = 0; n < whole.size(); ++n) {
    REQUIRE(outcome_of([&] { read(std::string_view(whole).substr(0, n)); }) != "accepted");
  }
  const Random rng{.seed = 8};
  for (std::uint64_t i = 0; i < 4000; ++i) {
    std::string damaged = whole;
    for (std::uint64_t k = 0; k <= i % 3; ++k) {
      damaged[rng.bits(i * 8 + 2 * k) % damaged.size()] =
          "{}[],:\"0129atrue\\ \xe2"[rng.bits(i * 8 + 2 * k + 1) % 20];
    }
    // Whatever it is: an Error, or a tokenizer that takes a text.
    error_of([&] {
      TokenStream out;
      read(damaged).encode("ab a<s>\xff", out);
    });
  }
}

TEST_CASE("text/pattern: matches as the writers of tokenizer files mean them") {
  const auto matches = [](std::string_view pattern, std::string_view text) {
    std::string out;
    Pattern(pattern).for_each_match(text, [&](std::size_t b, std::size_t e) {
      out += "(" + std::string(text.substr(b, e - b)) + ")";
    });
    return out;
  };
  CHECK(matches("\\s+", "a \t\xc2\x85\xc2\xa0 b\xe1\xa0\x8e") ==
        "( \t\xc2\x85\xc2\xa0 )");  // no U+180E
  CHECK(matches("[^\\s]+", "a\xe1\xa0\x8e b") == "(a\xe1\xa0\x8e)(b)");
  CHECK(matches("\\w+", "a\xcc\x81_1-b") == "(a\xcc\x81_1)(b)");
  CHECK(matches("x*", "axxb") == "()(xx)()");  // none right behind a match
  CHECK(matches("(?=b)", "abab") == "()()");
  CHECK(matches("^a", "a\na") == "(a)(a)");
  CHECK(matches("a.b", "a\nb a-b") == "(a-b)");
  CHECK(matches("\\u0041+", "aAA") == "(AA)");
  CHECK(matches("[[:digit:]]+", "a12") == "(12)");
  CHECK(matches("a", "").empty());
}

TEST_CASE("text/pattern: a pattern that never comes to an end is stopped") {
  const Pattern hostile("(a+)+$|(a|aa)+b");
  const std::string text = std::string(60, 'a') + "c";
  // Some 0.2 s of work; without limits, for ever.
  const ErrorInfo e =
      error_of([&] { hostile.for_each_match(text, [](std::size_t, std::size_t) {}); });
  CHECK(e.kind == ErrorClass::limit);
  CHECK(e.found.find("(a+)+$") != std::string::npos);
  // Deep recursion ends in the same way, not in an overflow of the stack.
  const Pattern nested("(?:(?:a|b)*c)*d");
  const std::string long_text(1 << 20, 'a');
  const std::string outcome =
      outcome_of([&] { nested.for_each_match(long_text, [](std::size_t, std::size_t) {}); });
  CHECK((outcome == "limit" || outcome == "accepted"));
}

TEST_CASE("text/normalizer: marks in any order take no quadratic time") {
  CHECK(growth(5000, [](std::size_t count) {
          std::string marks = "e";  // classes 230, then 220
          for (std::size_t i = 0; i < count; ++i) marks += i < count / 2 ? "\xcc\x81" : "\xcc\x96";
          AlignedText buffers[2];
          const TextView out = normalize({UnicodeForm::nfc}, {marks, nullptr, 0}, buffers);
          // The acute accent joins the letter across the marks below, which come first otherwise.
          CHECK(out.text.substr(0, 4) == "\xc3\xa9\xcc\x96");
          CHECK(out.text.size() == marks.size() - 1);
        }) < quadratic_growth);
}

TEST_CASE("text/normalizer: where normalised bytes come from") {
  const auto origins = [](NormalizerStep step, std::string_view text) {
    AlignedText buffers[2];
    const TextView out = normalize({std::move(step)}, {text, nullptr, 0}, buffers);
    std::string shown(out.text);
    for (std::size_t i = 0; i <= out.text.size(); ++i) {
      shown += " " + std::to_string(out.origin_at(i));
    }
    return shown;
  };
  CHECK(origins(UnicodeForm::nfc, "ae\xcc\x81x") == "a\xc3\xa9x 0 1 1 4 5");
  CHECK(origins(UnicodeForm::nfc, "ab") == "ab 0 1 2");
  CHECK(origins(UnicodeForm::nfc,
                "\xff"
                "e\xcc\x81\xfe") == "\xff\xc3\xa9\xfe 0 1 1 4 5");
  CHECK(origins(UnicodeForm::nfkc, "\xef\xac\x81") == "fi 0 0 3");
  CHECK(origins(PrependStep{"_"}, "ab") == "_ab 0 0 1 2");
  CHECK(origins(PrependStep{"_"}, "") == " 0");
  CHECK(origins(ReplaceStep{std::string(" "), "__"}, "a b") == "a__b 0 1 1 2 3");
  CHECK(origins(ReplaceStep{Pattern("b+"), ""}, "abbc") == "ac 0 3 4");
  CHECK(origins(StripStep{true, true}, " \xc2\xa0 a b ") == "a b 4 5 6 8");
  CHECK(origins(StripStep{true, true}, "  ") == " 2");
  CHECK(origins(CollapseSpacesStep{}, "  a   b ") == "a b 2 3 6 8");
  CHECK(origins(CollapseSpacesStep{}, "   ") == " 3");
  CHECK(origins(LowercaseStep{}, "A\xc4\xb0") == "ai\xcc\x87 0 1 1 1 3");
}

TEST_CASE("text/tokenizer_json: long runs of anything take no more than n log n") {
  const std::size_t size = 1 << 16;
  const auto repeated = [&](std::string_view unit) {
    std::string out;
    while (out.size() < size) out += unit;
    return out;
  };
  std::string noise, invalid;
  const Random rng{.seed = 9};
  for (std::uint64_t i = 0; i < size / 8; ++i) {
    const std::uint64_t r = rng.bits(i);
    noise.append(reinterpret_cast<const char*>(&r), 8);
    invalid += "\x80\xff\xc3\xe2\x96\xf0\xed\xa0";
  }
  const std::string texts[] = {repeated("a"),
                               repeated(" "),
                               repeated("\n"),
                               repeated(" \n\t"),
                               noise,
                               repeated("\xf0\x9f\x98\x80"),
                               repeated("\xcc\x81"),
                               repeated("\xcc\x81\xcc\x96"),
                               invalid,
                               repeated("[CTL]"),
                               repeated("<w"),
                               repeated("\xe2\x96\x81"),
                               repeated("the"),
                               repeated("'"),
                               repeated("1")};
  for (const char* name :
       {"byte_level_prefix_nfc_bos", "llama3_ignore_merges", "metaspace_first_nfkc_strip"}) {
    const BpeTokenizer t = read(case_named(name).json);
    for (const std::string& text : texts) {
      INFO(name << " " << escaped(text.substr(0, 8)));
      CHECK(growth(size / 8, [&](std::size_t n) { ids_of(t, text.substr(0, n)); }) <
            quadratic_growth);
    }
  }
}
