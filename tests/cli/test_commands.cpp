// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <limits>

#include <doctest/doctest.h>

#include "ropewalk/io/json.hpp"

#include "cli/program.hpp"
#include "support/shared_data.hpp"

using namespace ropewalk;

TEST_CASE("cli/commands: stories260K continues BOS with the published 200 ids") {
  const auto model = shared_data("stories260K/stories260K.bin");
  if (!model) {
    MESSAGE("skipped: no stories260K");
    return;
  }
  const std::string tokenizer = *shared_data("stories260K/tok512.bin");
  const TempDir folder;
  const auto generate = [&](const std::string& format) {
    const Outcome run =
        run_program(folder, {"generate", "--model", *model, "--tokenizer", tokenizer, "--prompt",
                             "", "--max-tokens", "200", "--format", format});
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    return run.out;
  };
  CHECK(generate("ids") == file_content(*shared_data("stories260K/expected_greedy_200_ids.txt")));
  CHECK(generate("text") ==
        file_content(*shared_data("stories260K/expected_greedy_200.txt")) + "\n");
  // The same from a file, and length-dependent frequencies say what is done about the cache.
  folder.write("prompt.txt", "Once upon a time");
  const Outcome run =
      run_program(folder, {"generate", "--model", *model, "--tokenizer", tokenizer, "--prompt-file",
                           "prompt.txt", "--max-tokens", "5", "--rope", "dynamic:factor=2"});
  CHECK(run.exit_code == 0);
  CHECK(run.out.starts_with("Once upon a time"));
  CHECK(run.err.find("mode consistent_decode") != std::string::npos);
}

TEST_CASE("cli/commands: bad input names the culprit, prints no result and leaves no file") {
  const TempDir folder;
  const std::string good = tiny_checkpoint();
  folder.write("good.bin", good);
  folder.write("ids.u16", tiny_tokens(100));
  folder.write("truncated.bin", good.substr(0, good.size() - 1));
  folder.write("overlong.bin", good + std::string(4, '\0'));
  folder.write("empty.bin", "");
  std::string bytes = good;
  const std::int32_t heads = 5;  // does not divide 16 channels
  std::memcpy(bytes.data() + 12, &heads, 4);
  folder.write("header.bin", bytes);
  bytes = good;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + 28 + 4 * 100, &nan, 4);
  folder.write("nan.bin", bytes);
  folder.write("high.u16", tiny_tokens(50) + std::string("\x28\x00", 2) + tiny_tokens(50));
  folder.write("odd.u16", tiny_tokens(50) + "x");
  folder.write("text.txt", "some text");
  folder.write("tokens.dat", tiny_tokens(50));
  const std::vector<std::string> before = folder.names();

  const std::string model = "--model=good.bin", ids = "--tokens=ids.u16", length = "--lengths=8";
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string culprit;
  };
  const std::vector<Case> cases = {
      // rope settings
      {{"sweep", model, ids, length, "--rope", "ntkk:factor=4"}, 2, "\"ntkk\""},
      {{"sweep", model, ids, length, "--rope", "ntk:facto=4"}, 2, "Did you mean factor?"},
      {{"sweep", model, ids, length, "--rope", "ntk"}, 2, "factor"},
      {{"sweep", model, ids, length, "--rope", "ntk:factor=nan"}, 2, "\"nan\""},
      {{"sweep", model, ids, length, "--rope", "ntk:factor={2,4"}, 2, "{2,4"},
      {{"sweep", model, ids, length, "--rope", "default", "default"}, 2, "twice"},
      // model files
      {{"sweep", "--model=none.bin", ids, length}, 7, "none.bin"},
      {{"sweep", "--model=truncated.bin", ids, length}, 3, "truncated.bin"},
      {{"sweep", "--model=overlong.bin", ids, length}, 3, "overlong.bin"},
      {{"sweep", "--model=empty.bin", ids, length}, 3, "empty.bin"},
      {{"sweep", "--model=header.bin", ids, length}, 3, "header.bin"},
      {{"sweep", "--model=nan.bin", ids, length}, 8, "element 100"},
      {{"sweep", ids, length}, 2, "--model"},
      // data
      {{"sweep", model, "--tokens=high.u16", length}, 3, "found 40"},
      {{"sweep", model, "--tokens=odd.u16", length}, 3, "101 bytes"},
      {{"sweep", model, "--tokens=tokens.dat", length}, 2, "tokens.dat"},
      {{"sweep", model, ids, "--lengths=200"}, 2, "100 tokens"},
      {{"sweep", model, ids, length, "--window-tokens=8"}, 2, "--window-tokens"},
      {{"sweep", model, length}, 2, "--text"},
      {{"sweep", model, ids, "--text=text.txt", length}, 2, "--tokens"},
      {{"sweep", model, "--text=text.txt", length}, 2, "--tokenizer"},
      {{"sweep", model, "--text=text.txt", "--tokenizer=bytes", length}, 3, "256 tokens"},
      // values of options
      {{"sweep", model, ids, "--lengths=0"}, 2, "--lengths"},
      {{"sweep", model, ids, "--lengths=8,8"}, 2, "\"8\" twice"},
      {{"sweep", model, ids, "--lengths=-5"}, 2, "-5"},
      {{"sweep", model, ids}, 2, "--lengths"},
      {{"sweep", model, ids, length, "--threads=0"}, 2, "--threads"},
      {{"sweep", model, ids, length, "--threads=two"}, 2, "\"two\""},
      {{"sweep", model, ids, length, "--threads=1000000"}, 2, "1000000"},
      {{"sweep", model, ids, length, "--seed=18446744073709551616"}, 2, "--seed"},
      {{"sweep", model, ids, length, "--protocol=strided"}, 2, "prefix"},
      {{"sweep", model, ids, length, "--dtype=f16"}, 2, "f16"},
      {{"sweep", model, ids, length, "--windows=1", "--windows=2"}, 2, "--windows"},
      {{"sweep", model, ids, length, "--out=ids.u16"}, 2, "ids.u16"},
      {{"sweep", model, ids, length, "--nll-out=ids.u16"}, 2, "ids.u16"},
      {{"sweep", model, ids, length, "--nll-out=none/l.npy"}, 2, "none/l.npy"},
      {{"sweep", model, ids, "--lenghts=8"}, 2, "Did you mean --lengths?"},
      {{"sweep", model, ids, length, "stray"}, 2, "stray"},
      {{"ppl", model, ids, length, "--rope=theta={1e4,1e5}"}, 2, "2 settings"},
      // other commands
      {{"generate", model, "--tokenizer=bytes", "--prompt=a", "--temperature=-1"},
       2,
       "--temperature"},
      {{"generate", model, "--prompt=a"}, 2, "--tokenizer"},
      {{"generate", model, "--tokenizer=bytes"}, 2, "--prompt"},
      {{"rope", "show", "default"}, 2, "rope_theta"},
      {{"rope", "show", "theta=1e4", "--head-dim=3"}, 2, "--head-dim"},
      {{"rope", "show", "dynamic:factor=2", model}, 2, "--length"},
      {{"rope", "show", "none.json"}, 7, "none.json"},
      {{"swep"}, 2, "Did you mean sweep?"},
      {{"experiment"}, 4, "experiment"},
      {{"rope", "audit"}, 4, "rope audit"},
      {{}, 2, "--help"},
  };
  for (const Case& c : cases) {
    std::string line;
    for (const std::string& a : c.arguments) line += " " + a;
    const Outcome run = run_program(folder, c.arguments);
    INFO("ropewalk", line, "\n", run.err);
    CHECK(run.exit_code == c.exit_code);
    CHECK(run.err.starts_with("ropewalk: error: "));
    CHECK(run.err.find(c.culprit) != std::string::npos);
    CHECK(run.out.empty());
    CHECK(folder.names() == before);
  }
}

TEST_CASE("cli/commands: --errors=json prints the error as an object") {
  const TempDir folder;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"sweep", "--errors=json", "--model", "none"},
        std::vector<std::string>{"--errors", "json", "sweep", "--model", "none", "--lengths", "x"},
        std::vector<std::string>{"nothing", "--errors=json"}}) {
    const Outcome run = run_program(folder, arguments);
    CHECK(run.exit_code == 2);
    const JsonDocument error = parse_json(run.err.substr(0, run.err.size() - 1), "stderr");
    CHECK(error.view().at("class").as_string() == "usage");
    for (const char* key : {"file", "where", "field", "found", "expected", "fix"}) {
      error.view().at(key).as_string();
    }
  }
}

TEST_CASE("cli/commands: help and version") {
  const TempDir folder;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--help"}, std::vector<std::string>{"sweep", "--help"},
        std::vector<std::string>{"ppl", "--help"}, std::vector<std::string>{"generate", "--help"},
        std::vector<std::string>{"rope", "show", "--help"},
        std::vector<std::string>{"selftest", "--help"}}) {
    const Outcome run = run_program(folder, arguments);
    CHECK(run.exit_code == 0);
    CHECK(run.err.empty());
    const std::size_t examples = run.out.find("Examples:");
    REQUIRE(examples != std::string::npos);
    CHECK(run.out.find("ropewalk ", examples) != std::string::npos);
  }
  const std::string version = run_program(folder, {"--version"}).out;
  for (const char* part : {"ropewalk 0.", "git revision: ", "compiler: ", "isa: ", "canon2"}) {
    INFO(part);
    CHECK(version.find(part) != std::string::npos);
  }
  CHECK(folder.names().empty());
}

TEST_CASE("cli/commands: rope show prints frequencies in three forms") {
  const TempDir folder;
  const std::string spec = "linear:rope_theta=10000,factor=2";
  const Outcome jsonl =
      run_program(folder, {"rope", "show", spec, "--head-dim", "4", "--format", "jsonl"});
  REQUIRE(jsonl.exit_code == 0);
  const JsonDocument document = parse_json(jsonl.out.substr(0, jsonl.out.size() - 1), "stdout");
  const JsonView row = document.view();
  CHECK(row.at("rope").as_string() == spec);
  CHECK(row.at("rotary_dim").as_integer() == 4);
  CHECK(row.at("attention_factor").as_number() == 1);
  CHECK(row.at("inv_freq").elements().at(0).as_number() == 0.5);
  CHECK(row.at("inv_freq").elements().at(1).as_number() == 0.005);
  CHECK(row.at("wavelength").elements().at(1).as_number() == doctest::Approx(400 * 3.14159265359));
  CHECK(row.at("rope_hash").as_string().size() == 16);
  const Outcome csv =
      run_program(folder, {"rope", "show", spec, "--head-dim", "4", "--format", "csv"});
  CHECK(csv.out.find("\"" + spec + "\"") != std::string::npos);
  CHECK(csv.out.find(",0.5,") != std::string::npos);
  const Outcome table = run_program(folder, {"rope", "show", spec, "--head-dim", "4"});
  CHECK(table.out.find("1256.64") != std::string::npos);
  CHECK(table.out.find(row.at("rope_hash").as_string()) != std::string::npos);
  // 128 channels unless something says otherwise; a model says.
  CHECK(run_program(folder, {"rope", "show", spec}).out.find("rotary_dim        128") !=
        std::string::npos);
  folder.write("model.bin", tiny_checkpoint());
  const std::string of_model = run_program(folder, {"rope", "show", "dynamic:factor=2", "--model",
                                                    "model.bin", "--length", "64"})
                                   .out;
  CHECK(of_model.find("rotary_dim        8") != std::string::npos);
  CHECK(of_model.find("original_max_position_embeddings=32") != std::string::npos);
}

TEST_CASE("cli/commands: selftest passes and is quick") {
  const TempDir folder;
  const auto start = std::chrono::steady_clock::now();
  const Outcome run = run_program(folder, {"selftest"});
  INFO(run.out, run.err);
  CHECK(run.exit_code == 0);
  CHECK(run.out.find("FAILED") == std::string::npos);
  CHECK(run.out.find("GFLOP/s") != std::string::npos);
  // Optimised builds take 2 s; the limit is the documentation's, doubled for a busy machine.
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}
