// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <csignal>
#include <sstream>
#include <thread>

#include <doctest/doctest.h>

#include "cli/program.hpp"
#include "support/shared_data.hpp"

using namespace ropewalk;

namespace {

/// A folder with the tiny model and a vocabulary of 40 pieces for it: <s>, letters, digits.
struct TinyModel {
  TempDir folder;
  TinyModel() {
    folder.write("tiny.bin", tiny_checkpoint(1.0f));
    std::string vocab = "<unk>\t0\n<s>\t0\n</s>\t0\n";
    for (int i = 0; i < 37; ++i) {
      const char c = static_cast<char>(i < 26 ? 'a' + i : i < 36 ? '0' + i - 26 : '.');
      vocab += std::string(1, c) + "\t" + std::to_string(-i) + "\n";
    }
    folder.write("tiny.vocab", vocab);
  }
  Outcome run(std::vector<std::string> arguments) const {
    std::vector<std::string> all = {"generate", "--model=tiny.bin", "--tokenizer=tiny.vocab"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run_program(folder, all);
  }
  std::string out(std::vector<std::string> arguments) const {
    const Outcome outcome = run(std::move(arguments));
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return outcome.out;
  }
};

std::vector<int> ids_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<int> ids;
  for (int id = 0; in >> id;) ids.push_back(id);
  return ids;
}

}  // namespace

TEST_CASE("cli/generate: text and ids say the same, from the command line and from a file") {
  const TinyModel tiny;
  const std::string text = tiny.out({"--prompt=abc", "--max-tokens=20"});
  CHECK(text.starts_with("abc"));
  CHECK(text.back() == '\n');
  const auto ids = ids_of(tiny.out({"--prompt=abc", "--max-tokens=20", "--format=ids"}));
  REQUIRE(ids.size() == 24);
  CHECK(ids[0] == 1);  // BOS first
  CHECK(ids[1] == 3);
  std::string spelled;
  for (const int id : ids) {
    if (id == 0) spelled += " \xe2\x81\x87 ";
    if (id >= 3)
      spelled += static_cast<char>(id < 29 ? 'a' + id - 3 : id < 39 ? '0' + id - 29 : '.');
  }
  CHECK(text == spelled + "\n");
  tiny.folder.write("prompt.txt", "abc");
  CHECK(tiny.out({"--prompt-file=prompt.txt", "--max-tokens=20"}) == text);
  // An empty prompt starts from BOS.
  CHECK(ids_of(tiny.out({"--prompt=", "--max-tokens=3", "--format=ids"})).size() == 4);
}

TEST_CASE(
    "cli/generate: sampling follows its options, threads and instruction sets do not matter") {
  const TinyModel tiny;
  const auto draw = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--prompt=abc", "--max-tokens=25", "--format=ids"});
    return tiny.out(more);
  };
  const std::string greedy = draw({});
  const std::string sampled = draw({"--temperature=1", "--seed=3"});
  CHECK(sampled == draw({"--temperature", "1", "--seed", "3", "--threads=2", "--isa=portable"}));
  CHECK(sampled != draw({"--temperature=1", "--seed=4"}));
  CHECK(sampled != greedy);
  CHECK(draw({"--temperature=1", "--top-k=1", "--seed=3"}) == greedy);
  CHECK(draw({"--temperature=1", "--top-p=1e-9", "--seed=3"}) == greedy);
  CHECK(draw({"--temperature=0", "--top-k=5", "--top-p=0.5"}) == greedy);
  CHECK(draw({"--temperature=1", "--top-k=1000", "--seed=3"}) == sampled);
  CHECK(draw({"--repetition-penalty=1000"}) != greedy);
}

TEST_CASE("cli/generate: what ends a text") {
  const TinyModel tiny;
  const std::string text = tiny.out({"--prompt=abc", "--max-tokens=20"});
  const std::string added = text.substr(3, text.size() - 4);
  REQUIRE(added.size() > 12);
  // A stop string of two characters of the continuation: cut before its first occurrence.
  const std::string stop = added.substr(8, 2);
  const Outcome stopped = tiny.run({"--prompt=abc", "--max-tokens=20", "--stop", "never", stop});
  CHECK(stopped.exit_code == 0);
  CHECK(stopped.out == "abc" + added.substr(0, added.find(stop)) + "\n");
  CHECK(stopped.err.find("end: stop string") != std::string::npos);
  CHECK(tiny.out({"--prompt=abc", "--max-tokens=20", "--stop=never", "--stop=" + stop}) ==
        stopped.out);
  // The context, prompt and continuation together; the trained length by default.
  const Outcome full = tiny.run({"--prompt=abc", "--max-tokens=100", "--format=ids"});
  CHECK(ids_of(full.out).size() == 32);
  CHECK(full.err.find("context of 32 tokens full") != std::string::npos);
  CHECK(full.err.find("tokens/s") != std::string::npos);
  const auto size = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--prompt=abc", "--max-tokens=100", "--format=ids"});
    return ids_of(tiny.out(more)).size();
  };
  CHECK(size({"--context=10"}) == 10);
  CHECK(size({"--context=64"}) == 64);
  CHECK(size({"--rope=linear:factor=2"}) == 64);  // twice the trained length
  CHECK(size({"--rope=theta=50000"}) == 32);
  CHECK(size({"--overflow=keep-ends"}) == 104);
  CHECK(tiny.run({"--prompt=abc", "--quiet", "--max-tokens=2"}).err.empty());
}

TEST_CASE("cli/generate: a prompt longer than the context") {
  const TinyModel tiny;
  std::string prompt;
  for (int i = 0; i < 60; ++i) prompt += static_cast<char>('a' + i * 7 % 26);
  tiny.folder.write("long.txt", prompt);
  const Outcome refused = tiny.run({"--prompt-file=long.txt"});
  CHECK(refused.exit_code == 2);
  CHECK(refused.err.find("--prompt-file: found 61 tokens") != std::string::npos);
  CHECK(refused.err.find("--overflow keep-ends") != std::string::npos);
  CHECK(refused.out.empty());
  const Outcome cut = tiny.run(
      {"--prompt-file=long.txt", "--overflow=keep-ends", "--max-tokens=8", "--format=ids"});
  CHECK(cut.exit_code == 0);
  CHECK(cut.err.find("of 61 tokens the first 12 and the last 12") != std::string::npos);
  const auto ids = ids_of(cut.out);
  REQUIRE(ids.size() == 69);
  // What follows is what follows the ends: BOS and 11 characters, and the last 12.
  const auto ends = ids_of(tiny.out(
      {"--prompt=" + prompt.substr(0, 11) + prompt.substr(48), "--max-tokens=8", "--format=ids"}));
  CHECK(std::equal(ends.end() - 8, ends.end(), ids.end() - 8));
}

TEST_CASE("cli/generate: length-dependent methods name their mode, and the modes differ") {
  const TinyModel tiny;
  std::vector<std::string> outputs;
  for (const std::string mode : {"consistent_decode", "recompute", "hf_cache", "fixed"}) {
    const Outcome run = tiny.run({"--prompt=abc", "--rope=dynamic:factor=4", "--max-tokens=90",
                                  "--repetition-penalty=1.5", "--format=ids", "--mode=" + mode});
    CHECK(run.exit_code == 0);
    CHECK(run.err.find("mode " + mode) != std::string::npos);
    outputs.push_back(run.out);
  }
  // The model has one layer, where consistent decoding is recomputation.
  CHECK(outputs[0] == outputs[1]);
  CHECK(outputs[0] != outputs[2]);
  CHECK(outputs[0] != outputs[3]);
  const Outcome unnamed = tiny.run({"--prompt=a", "--rope=dynamic:factor=4", "--max-tokens=2"});
  CHECK(unnamed.err.find("mode consistent_decode") != std::string::npos);
  const Outcome fixed = tiny.run({"--prompt=a", "--max-tokens=2"});
  CHECK(fixed.err.find(": mode ") == std::string::npos);
}

TEST_CASE("cli/generate: bad options name themselves") {
  const TinyModel tiny;
  const auto refused = [&](const std::string& option, const std::string& culprit) {
    const Outcome run = tiny.run({"--prompt=a", option});
    INFO(option, "\n", run.err);
    CHECK(run.exit_code == 2);
    CHECK(run.err.starts_with("ropewalk: error: "));
    CHECK(run.err.find(culprit) != std::string::npos);
    CHECK(run.out.empty());
  };
  refused("--temperature=-0.1", "--temperature: found -0.1");
  refused("--temperature=nan", "--temperature");
  refused("--top-k=-1", "--top-k");
  refused("--top-k=1.5", "--top-k");
  refused("--top-p=0", "--top-p");
  refused("--top-p=1.01", "(0, 1]");
  refused("--repetition-penalty=0", "--repetition-penalty");
  refused("--overflow=shift", "stop|keep-ends");
  refused("--mode=hf", "hf_cache");
  refused("--context=0", "--context");
  refused("--context=2", "context of 2");
  refused("--stop=", "--stop");
  refused("--max-tokens=0", "--max-tokens");
  refused("--prompt-file=x", "both");
  const Outcome ends = tiny.run({"--prompt=a", "--context=3", "--overflow=keep-ends"});
  CHECK(ends.exit_code == 2);
  CHECK(ends.err.find("--context") != std::string::npos);
}

TEST_CASE("cli/generate: an interrupt ends the text cleanly, with exit code 130") {
  const TinyModel tiny;
  Program run(tiny.folder,
              {"generate", "--model=tiny.bin", "--tokenizer=tiny.vocab", "--prompt=abc",
               "--max-tokens=1M", "--overflow=keep-ends", "--format=ids"});
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  run.signal(SIGINT);
  const Outcome outcome = run.wait();
  CHECK(outcome.exit_code == 130);
  CHECK(outcome.out.starts_with("1 3 4 5 "));
  CHECK(outcome.out.back() == '\n');
  CHECK(ids_of(outcome.out).size() > 4);
  CHECK(outcome.err.find("stopped by a signal") != std::string::npos);
}

TEST_CASE("cli/generate: TinyStories-656K tells a story") {
  const auto model = shared_data("tinystories-656k-hf");
  if (!model) {
    MESSAGE("skipped: no tinystories-656k-hf");
    return;
  }
  const TempDir folder;
  const Outcome run = run_program(
      folder, {"generate", "--model", *model, "--prompt", "Once upon a time", "--max-tokens=60"});
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  CHECK(run.out.starts_with("Once upon a time, a little girl named Lily lived in a small house "));
  CHECK(run.out.find("\xef\xbf\xbd") == std::string::npos);
}
