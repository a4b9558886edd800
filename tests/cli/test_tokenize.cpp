// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <doctest/doctest.h>

#include "cli/program.hpp"

using namespace ropewalk;

namespace {

const char* json = R"({"added_tokens":[{"id":4,"content":"<s>","special":true,"normalized":false}],
  "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"\u2581":3,"<":5,"s":6,">":7},"merges":["a b"]},
  "normalizer":{"type":"Replace","pattern":{"String":" "},"content":"\u2581"},
  "decoder":{"type":"Replace","pattern":{"String":"\u2581"},"content":" "},
  "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
    {"Sequence":{"id":"A","type_id":0}}],
    "special_tokens":{"<s>":{"id":"<s>","ids":[4],"tokens":["<s>"]}}}})";

}  // namespace

TEST_CASE("cli/tokenize: ids in one line and back, byte for byte") {
  const TempDir folder;
  folder.write("tokenizer.json", json);
  folder.write("text", "ab b<s>");
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"tokenize", "--tokenizer", "tokenizer.json"};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(folder, words);
  };
  CHECK(run({"--text", "text"}).out == "2 3 1 5 6 7\n");
  CHECK(run({"--text", "text", "--bos"}).out == "4 2 3 1 5 6 7\n");
  CHECK(run({"--text", "text", "--special-tokens", "ids"}).out == "2 3 1 4\n");
  folder.write("ids", "4 2 3\n1\t5 6 7\n");
  CHECK(run({"--text", "ids", "--decode"}).out == "ab b<s>");
  CHECK(run_program(folder, {"tokenize", "--tokenizer", ".", "--text=text"}).out ==
        "2 3 1 5 6 7\n");
  // Any bytes, nothing added or removed.
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  folder.write("bytes", bytes + "\n\n");
  const Outcome ids = run_program(folder, {"tokenize", "--tokenizer", "bytes", "--text", "bytes"});
  CHECK(ids.out.starts_with("0 1 2 "));
  CHECK(ids.out.ends_with(" 255 10 10\n"));
  folder.write("byte_ids", ids.out);
  CHECK(run_program(folder, {"tokenize", "--tokenizer", "bytes", "--text", "byte_ids", "--decode"})
            .out == bytes + "\n\n");
  folder.write("empty", "");
  CHECK(run({"--text", "empty"}).out == "\n");
  CHECK(run({"--text", "empty", "--decode"}).out.empty());
}

TEST_CASE("cli/tokenize: bad input names the culprit and prints nothing") {
  const TempDir folder;
  folder.write("tokenizer.json", json);
  folder.write("vocab.json", "{\"a\":0}");
  folder.write("merges.txt", "");
  folder.write("text", "ab");
  folder.write("ids", "1 x");
  folder.write("high", "1 999");
  struct Bad {
    std::vector<std::string> more;
    int code;
    const char* mentions;
  };
  const Bad table[] = {
      {{}, 2, "--tokenizer"},
      {{"--tokenizer", "absent"}, 7, "absent"},
      {{"--tokenizer", "bytes", "--bos", "--text", "text"}, 2, "--bos"},
      {{"--tokenizer", "bytes", "--bos", "--decode", "--text", "text"}, 2, "--bos"},
      {{"--tokenizer", "tokenizer.json", "--text", "absent"}, 7, "absent"},
      {{"--tokenizer", "tokenizer.json", "--decode", "--text", "ids"}, 2, "byte 2"},
      {{"--tokenizer", "tokenizer.json", "--decode", "--text", "high"}, 2, "999"},
      {{"--tokenizer", "vocab.json", "--text", "text"}, 2, "tokenizer-pattern"},
      {{"--tokenizer", "vocab.json", "--tokenizer-pattern", "gpt2", "--text", "text"}, 3, "\"b\""},
      {{"--tokenizer", "tokenizer.json", "--tokenizer-pattern", "gpt2", "--text", "text"},
       2,
       "tokenizer-pattern"},
      {{"--tokenizer", "text", "--text", "text"}, 4, "tokenizer.json"},
      {{"--tokenizer", "bytes", "--special-tokens", "id", "--text", "text"}, 2, "ids"},
  };
  for (const Bad& bad : table) {
    std::vector<std::string> words = {"tokenize"};
    words.insert(words.end(), bad.more.begin(), bad.more.end());
    const Outcome run = run_program(folder, words);
    INFO(run.err);
    CHECK(run.exit_code == bad.code);
    CHECK(run.err.find(bad.mentions) != std::string::npos);
    CHECK(run.out.empty());
  }
}
