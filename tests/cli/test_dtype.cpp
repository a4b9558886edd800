// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "cli/rows.hpp"

namespace ropewalk {
namespace {

TEST_CASE("cli/dtype: rows and manifest name the dtype; losses are near those of f32, not equal") {
  const Inputs in;
  const std::vector<std::string> options = {"--length", "64", "--quiet", "--format", "jsonl"};
  std::vector<double> nll;
  for (const std::string dtype : {"f32", "bf16"}) {
    std::vector<std::string> words = in.command("ppl", options);
    words.insert(words.end(), {"--dtype", dtype});
    const Outcome run = run_program(in.folder, words);
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    const std::vector<JsonDocument> rows = rows_of(run.out);
    REQUIRE(rows.size() == 1);
    CHECK(rows[0].view().at("dtype").as_string() == dtype);
    nll.push_back(rows[0].view().at("nll").as_number());
  }
  CHECK(nll[0] != nll[1]);
  // One layer rounds seven times by at most 2^-8; means over hundreds of tokens keep a tenth.
  CHECK(std::fabs(nll[0] - nll[1]) < 0.01);
}

TEST_CASE("cli/dtype: a sweep of another dtype does not go on in the same folder") {
  const Inputs in;
  const std::vector<std::string> options = {"--lengths", "16,32", "--out", "results", "--quiet"};
  const Outcome first = in.run(options);
  INFO(first.err);
  REQUIRE(first.exit_code == 0);
  const std::string rows = file_content(in.folder / "results/results.jsonl");
  std::vector<std::string> other = options;
  other.insert(other.end(), {"--dtype", "bf16"});
  const Outcome second = in.run(other);
  CHECK(second.exit_code == 6);
  CHECK(second.err.find("dtype") != std::string::npos);
  CHECK(file_content(in.folder / "results/results.jsonl") == rows);
  const std::string manifest = file_content(in.folder / "results/manifest.json");
  CHECK(manifest.find("\"dtype\": \"f32\"") != std::string::npos);
}

TEST_CASE("cli/dtype: bf16 losses have the same bits on every thread count and resume") {
  const Inputs in;
  const auto losses = [&in](const std::string& threads) {
    const std::string file = "losses-" + threads + ".npy";
    const Outcome run =
        run_program(in.folder, in.command("ppl", {"--length", "100", "--dtype", "bf16", "--threads",
                                                  threads, "--nll-out", file, "--quiet"}));
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    return file_content(in.folder / file);
  };
  CHECK(losses("1") == losses("3"));
}

TEST_CASE("cli/dtype: generate and dry runs take bf16") {
  const Inputs in;
  const Outcome plan = run_program(
      in.folder, in.sweep({"--lengths", "16", "--dry-run", "--dtype", "bf16", "--quiet"}));
  INFO(plan.err);
  CHECK(plan.exit_code == 0);
  std::string vocabulary = "<unk>\t0\n<s>\t0\n</s>\t0\n";
  for (int i = 0; i < 37; ++i) vocabulary += std::string(1, static_cast<char>('A' + i)) + "\t0\n";
  in.folder.write("tiny.vocab", vocabulary);
  const auto generate = [&in](const std::string& mode) {
    const Outcome run =
        run_program(in.folder, {"generate", "--model", "model.bin", "--tokenizer", "tiny.vocab",
                                "--prompt", "ABC", "--max-tokens", "20", "--ignore-eos", "--format",
                                "ids", "--dtype", "bf16", "--mode", mode, "--quiet"});
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    return run.out;
  };
  const std::string ids = generate("consistent_decode");
  CHECK(std::count(ids.begin(), ids.end(), ' ') == 23);  // BOS, three of the prompt, 20
  CHECK(generate("recompute") == ids);
}

}  // namespace
}  // namespace ropewalk
