// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cmath>
#include <filesystem>
#include <thread>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/io/atomic_file.hpp"
#include "ropewalk/io/json.hpp"

#include "cli/rows.hpp"
#include "support/kill_points.hpp"

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

TEST_CASE("cli/train: bf16 operands learn as much, with the same bits for other threads") {
  const TempDir folder;
  const Outcome one =
      run_program(folder, train_words("one", {"--dtype", "bf16", "--threads", "1"}));
  INFO(one.err);
  REQUIRE(one.exit_code == 0);
  const Outcome two =
      run_program(folder, train_words("two", {"--dtype", "bf16", "--threads", "2"}));
  REQUIRE(two.exit_code == 0);
  CHECK(learnt(one.out) == learnt(two.out));
  const Outcome floats = run_program(folder, train_words("floats"));
  REQUIRE(floats.exit_code == 0);
  const double rounded = rows_of(one.out).back().view().at("loss").as_number();
  const double exact = rows_of(floats.out).back().view().at("loss").as_number();
  CHECK(rounded != exact);
  CHECK(std::fabs(rounded - exact) < 0.02 * exact);
  const Outcome refused = run_program(folder, train_words("one"));
  CHECK(refused.exit_code == 6);
  CHECK(refused.err.find("bf16") != std::string::npos);
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

TEST_CASE("cli/train: killed wherever it changes files, a run ends with the same weights") {
  const TempDir folder;
  const auto words = [](const std::string& out) {
    std::vector<std::string> short_run = train_words(out, {"--quiet", "--threads", "1"});
    short_run[8] = "256";  // of --tokens: four steps, a checkpoint after the third
    return short_run;
  };
  const Outcome whole = run_program(folder, words("whole"));
  INFO(whole.err);
  REQUIRE(whole.exit_code == 0);
  const std::string weights = file_content(folder / "whole/model.safetensors");
  const auto calls = for_each_kill_point(
      [&] { std::filesystem::remove_all(folder / "killed"); },
      [&] { Program::become(folder, words("killed"), folder / "out", folder / "err"); },
      [&](bool) {
        const Outcome resumed = run_program(folder, words("killed"));
        INFO(resumed.err);
        REQUIRE(resumed.exit_code == 0);
        CHECK(learnt(resumed.out) == learnt(whole.out));
        CHECK(file_content(folder / "killed/model.safetensors") == weights);
        for (const auto& entry : std::filesystem::directory_iterator(folder / "killed")) {
          INFO(entry.path().string());
          CHECK_FALSE(is_unfinished_file(entry.path().filename().string()));
        }
      },
      changes_files);
  if (calls.empty()) {
    MESSAGE("skipped: processes may not be traced here");
    return;
  }
  MESSAGE(calls.size() << " calls that change files");
  CHECK(calls.size() > 12);
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
  const Outcome early =
      run_program(folder, {"sweep", "--model", "run", "--synthetic", "--lengths", "32"});
  CHECK(early.exit_code == 6);
  CHECK(early.err.find("a training run that has not ended") != std::string::npos);

  std::vector<std::string> other = first;
  other[8] = "32K";
  const Outcome refused = run_program(folder, other);
  CHECK(refused.exit_code == 6);
  CHECK(refused.err.find("stages") != std::string::npos);
  CHECK(refused.err.find("65536") != std::string::npos);  // what differs is shown, however far on
  CHECK(refused.err.find("32768") != std::string::npos);
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
  refused({"--preset", "nano", "--lr", "0", "--out", "x"}, 2, "--lr: found 0");
  refused({"--preset", "nano", "--lr-end", "-1", "--out", "x"}, 2, "--lr-end: found -1");
  refused({"--preset", "nano", "--warmup", "-0.1", "--out", "x"}, 2, "--warmup: found -0.1");
  refused({"--preset", "nano", "--text", "text.txt", "--out", "x"}, 2, "at least one sequence");
  refused({"--preset", "nano", "--rope", "yarn", "--out", "x"}, 2, "factor");
  refused({"--init", "nothing", "--out", "x"}, 7, "nothing");
}

TEST_CASE("cli/train: what others left in a folder stays") {
  const TempDir folder;
  REQUIRE(run_program(folder, train_words("model", {"--quiet"})).exit_code == 0);
  std::filesystem::create_directory(folder / "other");
  folder.write("other/config.json", "{}");
  folder.write("file", "mine");
  for (const char* out : {"other", "file"}) {
    const Outcome refused = run_program(folder, train_words(out));
    CAPTURE(refused.err);
    CHECK(refused.exit_code == 6);
    CHECK(refused.err.find("another --out") != std::string::npos);
  }
  CHECK(file_content(folder / "other/config.json") == "{}");
  CHECK(file_content(folder / "file") == "mine");
  // A model cannot be trained in its own folder either.
  const std::string weights = file_content(folder / "model/model.safetensors");
  const Outcome own =
      run_program(folder, {"train", "--init", "model", "--length", "32", "--batch-tokens", "64",
                           "--tokens", "64", "--out", "model"});
  CHECK(own.exit_code == 6);
  CHECK(file_content(folder / "model/model.safetensors") == weights);
}

TEST_CASE("cli/train: stopped within a validation, a run goes on with its row") {
  const TempDir folder;
  const std::vector<std::string> words = {"train",    "--init",
                                          "embedded", "--length",
                                          "32",       "--batch-tokens",
                                          "64",       "--tokens",
                                          "128",      "--log-every",
                                          "1",        "--validate-lengths",
                                          "2K",       "--validate-windows",
                                          "6",        "--format",
                                          "jsonl",    "--out",
                                          "cut"};
  Program program(folder, words);
  REQUIRE(wait_until([&] { return file_exists(folder / "cut/manifest.json"); }));
  REQUIRE(wait_until([&] { return !file_content(folder / "cut/train.jsonl.holder").empty(); }));
  program.signal(SIGTERM);
  program.signal(SIGHUP);  // an echo, as `timeout` sends; two of one kind may become one
  const Outcome stopped = program.wait();
  CHECK(stopped.exit_code == 143);
  CHECK(stopped.err.find("stopped after step") != std::string::npos);
  CHECK_FALSE(file_content(folder / "cut/training_state.safetensors").empty());
  const Outcome resumed = run_program(folder, words);
  INFO(resumed.err);
  REQUIRE(resumed.exit_code == 0);
  std::vector<std::string> others = words;
  others.back() = "whole";
  const Outcome whole = run_program(folder, others);
  REQUIRE(whole.exit_code == 0);
  CHECK(learnt(resumed.out) == learnt(whole.out));
  CHECK(rows_of(whole.out).back().view().at("nll_2048").as_number() > 2);
}

TEST_CASE("cli/train: a state with a flipped bit is refused, an unfinished one is removed") {
  const TempDir folder;
  const Outcome run = run_program(folder, train_words("run", {"--quiet"}));
  REQUIRE(run.exit_code == 0);
  const std::string state = "run/training_state.safetensors";
  const std::string whole = file_content(folder / state);
  folder.write(state + ".tmp.999.0", "half a st");
  CHECK(run_program(folder, train_words("run", {"--quiet"})).exit_code == 0);
  CHECK_FALSE(file_exists(folder / (state + ".tmp.999.0")));
  CHECK(file_content(folder / state) == whole);

  // One bit of a weight, of a running mean, and of the position.
  const std::size_t position = whole.find("\"position\":\"");
  REQUIRE(position != std::string::npos);
  for (const std::size_t at : {whole.size() / 6, whole.size() / 2, position + 12}) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    folder.write(state, flipped);
    const Outcome refused = run_program(folder, train_words("run", {"--quiet"}));
    CHECK(refused.exit_code == 6);
    CHECK(refused.err.find("training_state.safetensors") != std::string::npos);
  }
}
