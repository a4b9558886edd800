// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "ropewalk/io/json.hpp"

#include "cli/rows.hpp"

using namespace ropewalk;

namespace {

std::vector<std::string> staged_words(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> words = {
      "train", "--preset",    "nano", "--stages",           "stages.json", "--format",
      "jsonl", "--log-every", "1",    "--checkpoint-every", "2",           "--out",
      out};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace

TEST_CASE("cli/train: mixtures with retrieval, growing windows and random positions resume alike") {
  const TempDir folder;
  folder.write("stages.json", R"([
    {"length": 64, "tokens": 1024, "batch_tokens": 128, "window_from": 8,
     "mixture": [{"source": "synthetic", "share": 4}, {"source": "passkey"}, {"source": "key-value"},
                 {"source": "multi-query"}, {"source": "copy", "loss": "all"}]},
    {"length": 64, "tokens": 512, "batch_tokens": 128, "positions": "pose",
     "position_range": 512},
    {"length": 64, "tokens": 512, "batch_tokens": 128, "positions": "randpos",
     "position_range": 512}])");
  const std::vector<std::string> more = {"--validate-lengths", "64,16", "--validate-every", "4",
                                         "--validate-windows", "3"};
  std::vector<std::string> redundant = more;
  redundant.insert(redundant.end(), {"--length", "32", "--tokens", "7", "--lr", "1e-3"});
  const Outcome whole = run_program(folder, staged_words("whole", redundant));
  INFO(whole.err);
  REQUIRE(whole.exit_code == 0);
  CHECK(whole.err.find("--length has no effect: every stage of stages.json has its own length and "
                       "batch_tokens") != std::string::npos);
  CHECK(whole.err.find("--tokens has no effect") != std::string::npos);
  CHECK(whole.err.find("--lr has no effect") == std::string::npos);
  CHECK(whole.err.find("--by-distance") != std::string::npos);
  const std::vector<JsonDocument> rows = rows_of(whole.out);
  std::size_t validated = 0;
  for (const JsonDocument& row : rows) {
    const bool due = row.view().at("step").as_integer() % 4 == 0;
    CHECK(row.view().at("nll_16").is_null() != due);
    CHECK(row.view().at("nll_64").is_null() != due);
    validated += due;
  }
  CHECK(validated == 4);  // 16 steps

  // Killed after its first checkpoint, a run goes on to the same end.
  Program program(folder, staged_words("cut", more));
  REQUIRE(wait_until([&] { return !file_content(folder / "cut/train.jsonl").empty(); }));
  program.signal(SIGKILL);
  program.wait();
  const Outcome resumed = run_program(folder, staged_words("cut", more));
  INFO(resumed.err);
  REQUIRE(resumed.exit_code == 0);
  CHECK(learnt(resumed.out) == learnt(whole.out));
  CHECK(file_content(folder / "cut/model.safetensors") ==
        file_content(folder / "whole/model.safetensors"));

  // The last row's losses are those of a sweep of the checkpoint.
  const Outcome sweep =
      run_program(folder, {"sweep", "--model", "whole", "--synthetic", "--windows", "3",
                           "--lengths", "16,64", "--format", "jsonl"});
  INFO(sweep.err);
  REQUIRE(sweep.exit_code == 0);
  for (const JsonDocument& row : rows_of(sweep.out)) {
    const auto key = "nll_" + std::to_string(row.view().at("length").as_integer());
    CHECK(row.view().at("nll").as_number() ==
          doctest::Approx(rows.back().view().at(key).as_number()).epsilon(1e-12));
  }
}

TEST_CASE("cli/train: instructions learn the responses, epochs end where the data does") {
  const TempDir folder;
  // 12 + 3 bytes each: 14 tokens with a target, of which the last 3 weigh.
  std::string pairs;
  for (int i = 0; i < 10; ++i)
    pairs += R"({"prompt": "0123456789ab", "response": "xyz"})"
             "\n";
  folder.write("pairs.jsonl", pairs);
  folder.write("stages.json", R"([{"length": 32, "epochs": 3, "batch_tokens": 32, "lr": 3e-3,
    "mixture": [{"source": "instructions", "text": ["pairs.jsonl"]}]}])");
  const Outcome run = run_program(folder, staged_words("a"));
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  const std::vector<JsonDocument> rows = rows_of(run.out);
  REQUIRE(rows.size() == 15);  // two sequences a step
  CHECK(rows.back().view().at("tokens").as_integer() == 3 * 10 * 14);
  CHECK(rows.front().view().at("loss").as_number() ==
        doctest::Approx(std::log(256.0)).epsilon(0.1));
  CHECK(rows.back().view().at("loss").as_number() < 2);  // three symbols, always the same

  // With the prompts' ids, which are as regular, other losses come out.
  folder.write("stages.json", R"([{"length": 32, "epochs": 3, "batch_tokens": 32, "lr": 3e-3,
    "mixture": [{"source": "instructions", "text": ["pairs.jsonl"], "prompt_weight": 0.5}]}])");
  const Outcome refused = run_program(folder, staged_words("a"));
  CHECK(refused.exit_code == 6);
  const Outcome both = run_program(folder, staged_words("b"));
  INFO(both.err);
  REQUIRE(both.exit_code == 0);
  CHECK(learnt(both.out) != learnt(run.out));
}

TEST_CASE("cli/train: documents of similar length, tasks in text, a validation text") {
  const TempDir folder;
  std::string text;
  for (int i = 0; i < 60; ++i) {
    text += "a document of " + std::string(static_cast<std::size_t>(1 + i * i % 90), 'o') + "|";
  }
  folder.write("text.txt", text);
  folder.write("stages.json", R"([{"length": 96, "epochs": 1, "batch_tokens": 192,
    "mixture": [{"source": "documents"}]},
    {"length": 512, "tokens": 2048, "batch_tokens": 1024, "mixture": [
      {"source": "passkey-text"}, {"source": "json_kv", "loss": "all"}]}])");
  const Outcome run = run_program(
      folder, staged_words("a", {"--text", "text.txt", "--document-separator", "|",
                                 "--validate-lengths", "64", "--validate-text", "text.txt"}));
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  CHECK(rows_of(run.out).back().view().at("nll_64").as_number() <
        rows_of(run.out).front().view().at("loss").as_number());
}

TEST_CASE("cli/train: stages and validations that do not fit are refused before anything is made") {
  const TempDir folder;
  folder.write("text.txt", std::string(200, 'a'));
  folder.write("broken.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": 1}\n");
  const auto refused = [&](const std::string& stage, std::vector<std::string> more, int code,
                           const std::string& part) {
    folder.write("stages.json", "[" + stage + "]");
    const Outcome o = run_program(folder, staged_words("x", std::move(more)));
    CAPTURE(stage);
    CAPTURE(o.err);
    CHECK(o.exit_code == code);
    CHECK(o.err.find(part) != std::string::npos);
    CHECK_FALSE(file_exists(folder / "x/manifest.json"));
  };
  refused(R"({"epochs": 2})", {}, 3, "epochs");
  refused(R"({"epochs": 2, "tokens": 100})", {}, 3, "either tokens or epochs");
  refused(R"({"window_from": 4096})", {}, 3, "window_from");
  refused(R"({"positions": "pose"})", {}, 3, "position_range");
  refused(R"({"lr": 0})", {}, 3, "lr: found 0");
  refused(R"({"lr_end": -1})", {}, 3, "lr_end: found -1");
  refused(R"({"beta1": 1})", {}, 3, "beta1");
  refused(R"({"rope": "theta=-4"})", {}, 3, "stage 0");
  refused(R"({"length": 8, "mixture": [{"source": "passkey"}]})", {}, 3, "passkey");
  refused(R"({"mixture": [{"source": "sinthetic"}]})", {}, 3, "did you mean synthetic");
  refused(R"({"position_range": 4096})", {}, 3, "pose or randpos");
  refused(R"({"mixture": [{"source": "passkeys"}]})", {}, 3, "passkey");
  refused(R"({"mixture": [{"source": "documents"}]})", {}, 2, "--text");
  refused(R"({"mixture": [{"source": "text", "loss": "answers"}]})", {"--text", "text.txt"}, 3,
          "no answers");
  refused(R"({"mixture": [{"source": "instructions"}]})", {}, 3, "text");
  refused(R"({"mixture": [{"source": "instructions", "text": ["broken.jsonl"]}]})", {}, 3,
          "broken.jsonl:2");
  refused(R"({"mixture": [{"source": "synthetic", "prompt_weight": 1}]})", {}, 3, "instructions");
  refused(R"({"length": 64, "mixture": [{"source": "json_kv"}]})", {"--text", "text.txt"}, 3,
          "json_kv");
  folder.write("empty.jsonl", "\n");
  folder.write("mute.jsonl", R"({"prompt": "a", "response": ""})");
  refused(R"({"mixture": [{"source": "instructions", "text": ["empty.jsonl"]}]})", {}, 3,
          "empty.jsonl");
  refused(R"({"mixture": [{"source": "instructions", "text": ["mute.jsonl"]}]})", {}, 3,
          "mute.jsonl:1: response");
  refused("{}", {"--validate-text", "text.txt"}, 2, "--validate-lengths");
  refused("{}", {"--validate-every", "5"}, 2, "--validate-lengths");
  refused("{}", {"--text", "text.txt", "--length", "64", "--validate-lengths", "64"}, 2,
          "--validate-text");
  refused("{}",
          {"--text", "text.txt", "--length", "64", "--validate-lengths", "256", "--validate-text",
           "text.txt"},
          2, "at least one window");
}
