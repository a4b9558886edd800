// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

#include "ropewalk/io/json.hpp"

#include "cli/program.hpp"

using namespace ropewalk;

namespace {

/// The one row that `ropewalk bench` prints with these arguments.
JsonDocument bench_row(std::vector<std::string> arguments) {
  const TempDir folder;
  arguments.insert(arguments.begin(), "bench");
  arguments.insert(arguments.end(), {"--format", "jsonl"});
  const Outcome run = run_program(folder, arguments);
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  REQUIRE(std::count(run.out.begin(), run.out.end(), '\n') == 1);
  return parse_json(run.out.substr(0, run.out.size() - 1), "row");
}

/// Whether the executable is instrumented: then freed memory is kept and the peak is not ours.
constexpr bool instrumented() {
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return true;
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#endif
  return false;
}

}  // namespace

TEST_CASE("cli/bench: a row counts operations as documented and is consistent in itself") {
  const JsonDocument row = bench_row({"--shape", "C=48,L=3,F=80,V=200,H=6,K=2,D=10", "--length",
                                      "130", "--repetitions=4", "--threads=2", "--seed=5"});
  const JsonView r = row.view();
  CHECK(r.at("shape").as_string() == "C=48,L=3,F=80,V=200,H=6,K=2,D=10");
  CHECK(r.at("length").as_integer() == 130);
  CHECK(r.at("dtype").as_string() == "f32");
  CHECK(r.at("threads").as_integer() == 2);
  CHECK(r.at("repetitions").as_integer() == 4);

  // Per token: q and o are 48 x 60, k and v 48 x 20, three matrices 48 x 80, the head 48 x 200.
  const double weights = 3 * (2 * 48 * 60 + 2 * 48 * 20 + 3 * 48 * 80) + 48 * 200;
  const double pairs = 130 * 131 / 2;
  const double flops = 2 * 130 * weights + 3 * 6 * (4 * 10 * pairs);
  CHECK(r.at("flops").as_number() == flops);

  const auto number = [&r](const char* key) { return r.at(key).as_number(); };
  const double rate = number("tok_s"), gflops = number("gflops"), limit = number("limit_gflops");
  CHECK(rate > 0);
  CHECK(number("tok_s_min") <= rate);
  CHECK(rate <= number("tok_s_max"));
  CHECK(gflops == doctest::Approx(rate / 130 * flops * 1e-9).epsilon(1e-12));
  CHECK(limit > 0);
  CHECK(number("share_of_limit") == doctest::Approx(gflops / limit).epsilon(1e-12));
  CHECK(number("share_of_limit") > 0);
  CHECK(number("share_of_limit") <= 1.2);
}

TEST_CASE("cli/bench: peak memory is what was predicted") {
  // Weights of 12 MB and buffers of 6 MB; what the program takes itself is part of both numbers.
  const JsonDocument row = bench_row(
      {"--shape", "C=256,L=1,F=688,V=4096,H=4,K=4,D=64", "--length", "1K", "--repetitions=1"});
  const double predicted = row.view().at("predicted_bytes").as_number();
  const double peak = row.view().at("peak_rss_bytes").as_number();
  CHECK(predicted > 17e6);
  if (instrumented()) {
    MESSAGE("skipped: the peak of an instrumented executable");
    return;
  }
  // 10 % are promised; measured are 1 to 2 %.
  CHECK(predicted > 0.9 * peak);
  CHECK(predicted < 1.1 * peak);
}

TEST_CASE("cli/bench: a bf16 model takes half of the memory, and has a limit of its own") {
  const std::vector<std::string> arguments = {
      "--shape",    "C=256,L=1,F=688,V=4096,H=4,K=4,D=64", "--length", "256", "--repetitions=2",
      "--threads=1"};
  const auto row_of = [&arguments](const std::string& dtype) {
    std::vector<std::string> words = arguments;
    words.insert(words.end(), {"--dtype", dtype});
    return bench_row(words);
  };
  const JsonDocument half = row_of("bf16"), full = row_of("f32");
  const JsonView r = half.view(), f = full.view();
  CHECK(r.at("dtype").as_string() == "bf16");
  CHECK(r.at("flops").as_number() == f.at("flops").as_number());
  CHECK(r.at("limit_gflops").as_number() > 0);
  CHECK(r.at("share_of_limit").as_number() > 0);
  CHECK(r.at("share_of_limit").as_number() <= 1.2);
  const double predicted = r.at("predicted_bytes").as_number();
  // Matrices of 2.9 million numbers: 5.8 MB less, some of which scratch takes for what is widened.
  CHECK(f.at("predicted_bytes").as_number() - predicted > 4e6);
  if (instrumented()) {
    MESSAGE("skipped: the peak of an instrumented executable");
    return;
  }
  const double peak = r.at("peak_rss_bytes").as_number();
  CHECK(predicted > 0.9 * peak);
  CHECK(predicted < 1.1 * peak);
}

TEST_CASE("cli/bench: presets, table and csv") {
  const TempDir folder;
  const auto run = [&folder](const std::string& format) {
    return run_program(folder, {"bench", "--shape=nano", "--length=64", "--repetitions=1",
                                "--isa=portable", "--format", format});
  };
  const std::string shape = "C=128,L=4,F=344,V=256,H=4,K=4,D=32";
  const Outcome table = run("table"), csv = run("csv");
  CHECK(table.exit_code == 0);
  CHECK(table.out.starts_with("shape             " + shape + "\nlength            64\n"));
  for (const char* key :
       {"\ntok_s ", "\ngflops ", "\nshare_of_limit ", "\nlimit_gflops ", "\npeak_rss_bytes ",
        "\npredicted_bytes ", "\nisa               portable"}) {
    INFO(key);
    CHECK(table.out.find(key) != std::string::npos);
  }
  CHECK(csv.exit_code == 0);
  CHECK(csv.out.starts_with("shape,length,dtype,isa,threads,"));
  CHECK(csv.out.find("\n\"" + shape + "\",64,f32,portable,") != std::string::npos);
}

TEST_CASE("cli/bench: bad shapes and options name the culprit") {
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string culprit;
  };
  const std::string good = "--shape=C=16,L=1,F=16,V=16,H=1,K=1,D=8", length = "--length=8";
  const std::vector<Case> cases = {
      {{length}, 2, "--shape: found nothing"},
      {{"--shape=micr", length}, 2, "Did you mean micro?"},
      {{"--shape=", length}, 2, "--shape: found nothing"},
      {{"--shape=C=16,L=1,F=16,V=16,H=1,K=1", length}, 2, "no D"},
      {{"--shape=C=16,L=1,F=16,V=16,H=1,K=1,D=8,C=16", length}, 2, "C twice"},
      {{"--shape=C=16,L=1,F=16,V=16,H=1,K=1,D=8,X=2", length}, 2, "\"X=2\""},
      {{"--shape=C=16,L=1,F=16,V=16,H=1,K=1,D", length}, 2, "\"D\""},
      {{"--shape=C=16,L=0,F=16,V=16,H=1,K=1,D=8", length}, 2, "\"L=0\""},
      {{"--shape=C=16,L=-3,F=16,V=16,H=1,K=1,D=8", length}, 2, "\"L=-3\""},
      {{"--shape=C=16,L=1,F=16,V=1e3,H=1,K=1,D=8", length}, 2, "\"V=1e3\""},
      {{"--shape=C=16,L=1,F=16,V=16,H=1,K=1,D=7", length}, 2, "D=7"},
      {{"--shape=C=16,L=1,F=16,V=16,H=3,K=2,D=8", length}, 2, "K=2"},
      {{"--shape=C=1G,L=1,F=16,V=16,H=1,K=1,D=8", length}, 2, "C=1073741824"},
      {{"--shape=C=1M,L=4K,F=4M,V=4M,H=64K,K=64K,D=4K", length}, 2, "2^63"},
      {{"--shape=C=1M,L=9,F=4M,V=1M,H=1,K=1,D=8", length}, 5, "memory"},
      {{good, "--length=0"}, 2, "--length"},
      {{good, "--length=1G"}, 2, "at most 16M"},
      {{good, length, "--dtype=f64"}, 2, "f64"},
      {{good, length, "--repetitions=0"}, 2, "--repetitions"},
      {{good, length, "--threads=5000"}, 2, "5000"},
      {{good, "--lenght=8"}, 2, "Did you mean --length?"},
  };
  const TempDir folder;
  for (const Case& c : cases) {
    std::vector<std::string> words = {"bench"};
    words.insert(words.end(), c.arguments.begin(), c.arguments.end());
    const Outcome run = run_program(folder, words);
    INFO(c.arguments.front(), "\n", run.err);
    CHECK(run.exit_code == c.exit_code);
    CHECK(run.err.find(c.culprit) != std::string::npos);
    CHECK(run.out.empty());
  }
}
