// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cmath>
#include <thread>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/io/json.hpp"

#include "cli/rows.hpp"

using namespace ropewalk;

namespace {

/// A nano Llama on short sequences: steps of milliseconds.
std::vector<std::string> train_words(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> words = {"train", "--preset",       "nano",  "--length",
                                    "32",    "--batch-tokens", "64",    "--tokens",
                                    "2K",    "--log-every",    "4",     "--checkpoint-every",
                                    "3",     "--format",       "jsonl", "--seed",
                                    "5",     "--out",          out};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// Rows without what differs from run to run.
std::vector<std::string> learnt(const std::string& out) {
  std::vector<std::string> rows;
  for (const std::string& line : lines_of(out)) {
    rows.push_back(line.substr(0, line.find(",\"tok_s\"")));
  }
  return rows;
}

std::string text_for_bytes() {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "the cat sat on the mat and saw " + std::to_string(i % 7);
  return text;
}

}  // namespace

TEST_CASE("cli/train: rows, a checkpoint that sweep opens, and the same bits with other threads") {
  const TempDir folder;
  const Outcome one = run_program(folder, train_words("one", {"--threads", "1"}));
  INFO(one.err);
  REQUIRE(one.exit_code == 0);
  const std::vector<std::string> rows = lines_of(one.out);
  REQUIRE(rows.size() == 8);  // 32 steps
  double first = 0, last = 0;
  for (const std::string& line : rows) {
    const JsonDocument row = parse_json(line, "row");
    for (const char* key :
         {"step", "tokens", "loss", "lr", "grad_norm", "tok_s", "share_of_limit"}) {
      CHECK(std::isfinite(row.view().at(key).as_number()));
    }
    last = row.view().at("loss").as_number();
    if (first == 0) first = last;
  }
  CHECK(std::fabs(first - std::log(256.0)) < 0.5);  // nothing is known at the start
  CHECK(last < first - 0.1);
  const Outcome two = run_program(
      folder, train_words("two", {"--threads", "2", "--tokens-at-once", "32", "--recompute"}));
  REQUIRE(two.exit_code == 0);
  CHECK(learnt(one.out) == learnt(two.out));
  CHECK(file_content(folder / "one/model.safetensors") ==
        file_content(folder / "two/model.safetensors"));
  CHECK(file_content(folder / "one/training_state.safetensors").size() > 0);

  const Outcome sweep = run_program(folder, {"sweep", "--model", "one", "--synthetic", "--windows",
                                             "2", "--lengths", "32", "--format", "jsonl"});
  INFO(sweep.err);
  REQUIRE(sweep.exit_code == 0);
  const JsonDocument row = parse_json(sweep.out, "row");
  CHECK(row.view().at("nll").as_number() > row.view().at("floor").as_number());
  CHECK(row.view().at("floor").as_number() > 1);
}

TEST_CASE("cli/train: killed 20 times at random moments, a run ends with the same weights") {
  const TempDir folder;
  const auto start = std::chrono::steady_clock::now();
  const Outcome whole = run_program(folder, train_words("whole", {"--quiet"}));
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  INFO(whole.err);
  REQUIRE(whole.exit_code == 0);
  int killed = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Random random{.seed = 4, .stream = 1, .step = 0};
    Program program(folder, train_words("killed", {"--quiet"}));
    // So short that most runs are hit before their end, wherever they are.
    std::this_thread::sleep_for(
        std::chrono::duration<double>(seconds * (0.05 + 0.15 * random.uniform(i))));
    program.signal(SIGKILL);
    killed += program.wait().exit_code == 128 + SIGKILL ? 1 : 0;
  }
  CHECK(killed >= 3);
  MESSAGE(killed << " of 20 kills hit");
  const Outcome resumed = run_program(folder, train_words("killed", {"--quiet"}));
  INFO(resumed.err);
  REQUIRE(resumed.exit_code == 0);
  CHECK(learnt(resumed.out) == learnt(whole.out));
  CHECK(file_content(folder / "killed/model.safetensors") ==
        file_content(folder / "whole/model.safetensors"));
  // A finished run prints its rows again and changes nothing.
  const Outcome again = run_program(folder, train_words("killed", {"--quiet"}));
  CHECK(again.exit_code == 0);
  CHECK(learnt(again.out) == learnt(whole.out));
}

TEST_CASE("cli/train: SIGTERM keeps what was learnt, another configuration is refused") {
  const TempDir folder;
  std::vector<std::string> first = train_words("run");
  first[8] = "64K";  // of --tokens
  Program program(folder, first);
  REQUIRE(
      wait_until([&] { return !file_content(folder / "run/training_state.safetensors").empty(); }));
  program.signal(SIGTERM);
  const Outcome stopped = program.wait();
  CHECK(stopped.exit_code == 143);
  CHECK(stopped.err.find("stopped after step") != std::string::npos);

  std::vector<std::string> other = first;
  other[8] = "32K";
  const Outcome refused = run_program(folder, other);
  CHECK(refused.exit_code == 6);
  CHECK(refused.err.find("stages") != std::string::npos);
}

TEST_CASE("cli/train: continued at another base and length, in stages, on text") {
  const TempDir folder;
  folder.write("text.txt", text_for_bytes());
  folder.write("stages.json",
               R"([{"length": 16, "tokens": 256, "mixture": [{"source": "text-sorted"}]},
                   {"length": 32, "tokens": 256, "rope": "theta=50000", "lr": 1e-4,
                    "optimizer": "fresh", "decay": "constant",
                    "mixture": [{"source": "text", "share": 3}, {"source": "synthetic"}]}])");
  const Outcome run = run_program(
      folder, {"train", "--preset", "nano", "--text", "text.txt", "--batch-tokens", "64",
               "--stages", "stages.json", "--log-every", "1", "--format", "csv", "--out", "a"});
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  CHECK(lines_of(run.out).size() == 9);
  const std::string config = file_content(folder / "a/config.json");
  CHECK(config.find("\"rope_theta\": 50000") != std::string::npos);
  CHECK(config.find("\"max_position_embeddings\": 32") != std::string::npos);

  const Outcome on = run_program(folder, {"train",
                                          "--init",
                                          "a",
                                          "--rope",
                                          "yarn:factor=4",
                                          "--text",
                                          "text.txt",
                                          "--tokenizer",
                                          "bytes",
                                          "--batch-tokens",
                                          "128",
                                          "--length",
                                          "128",
                                          "--tokens",
                                          "256",
                                          "--log-every",
                                          "1",
                                          "--format",
                                          "jsonl",
                                          "--out",
                                          "b"});
  INFO(on.err);
  REQUIRE(on.exit_code == 0);
  CHECK(lines_of(on.out).size() == 2);
  CHECK(file_content(folder / "b/config.json").find("\"rope_type\": \"yarn\"") !=
        std::string::npos);
  const Outcome sweep =
      run_program(folder, {"ppl", "--model", "b", "--tokenizer", "bytes", "--text", "text.txt",
                           "--length", "64", "--format", "jsonl"});
  INFO(sweep.err);
  CHECK(sweep.exit_code == 0);
}

TEST_CASE("cli/train: wrong options name themselves") {
  const TempDir folder;
  folder.write("stages.json", R"([{"lenght": 16}])");
  folder.write("text.txt", "short");
  const auto refused = [&](std::vector<std::string> words, int code, const std::string& part) {
    words.insert(words.begin(), "train");
    const Outcome o = run_program(folder, words);
    CAPTURE(o.err);
    CHECK(o.exit_code == code);
    CHECK(o.err.find(part) != std::string::npos);
    CHECK_FALSE(file_exists(folder / "x/manifest.json"));
  };
  refused({"--out", "x"}, 2, "--preset");
  refused({"--preset", "nano"}, 2, "--out");
  refused({"--preset", "huge", "--out", "x"}, 2, "nano");
  refused({"--preset", "nano", "--length", "64", "--batch-tokens", "32", "--out", "x"}, 2,
          "batch-tokens");
  refused({"--preset", "nano", "--stages", "stages.json", "--out", "x"}, 3, "length");
  refused({"--preset", "nano", "--text", "text.txt", "--out", "x"}, 2, "at least one sequence");
  refused({"--preset", "nano", "--rope", "yarn", "--out", "x"}, 2, "factor");
  refused({"--init", "nothing", "--out", "x"}, 7, "nothing");
}
