// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "ropewalk/grid_plan.hpp"
#include "ropewalk/machine.hpp"
#include "ropewalk/model/cost.hpp"
#include "ropewalk/pass_store.hpp"
#include "ropewalk/progress.hpp"

#include "cli/rows.hpp"
#include "support/shared_data.hpp"

using namespace ropewalk;

namespace {

std::vector<Pass> three_passes() {
  return {{.begin = 0, .end = 5, .first_scored = 1},
          {.begin = 5, .end = 9, .first_scored = 2},
          {.begin = 9, .end = 12, .first_scored = 1}};
}

/// "12.3 MB" after `label`, in bytes; -1 when it is not there.
double bytes_after(const std::string& text, const std::string& label) {
  const std::size_t at = text.find(label);
  if (at == std::string::npos) return -1;
  std::istringstream in(text.substr(at + label.size()));
  double value = -1;
  std::string unit;
  in >> value >> unit;
  const std::string prefixes = "kMGT";
  const std::size_t power = prefixes.find(unit.empty() ? ' ' : unit[0]);
  return power == std::string::npos ? value
                                    : value * std::pow(1000.0, static_cast<double>(power + 1));
}

/// A llama2.c checkpoint of pseudo-random weights.
std::string checkpoint(std::int32_t dim, std::int32_t hidden, std::int32_t layers,
                       std::int32_t heads, std::int32_t vocab, std::int32_t length) {
  const std::int32_t header[] = {dim, hidden, layers, heads, heads, vocab, length};
  const std::int64_t parameters =
      std::int64_t{vocab} * dim + std::int64_t{layers} * (2 * dim + 4 * dim * dim) +
      std::int64_t{layers} * 3 * dim * hidden + dim + std::int64_t{length} * (dim / heads);
  std::string bytes(reinterpret_cast<const char*>(header), sizeof header);
  std::uint32_t state = 1;
  for (std::int64_t i = 0; i < parameters; ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = 0.1f * (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

}  // namespace

TEST_CASE("cli/plan: batches follow the order of settings and cross their ends where they may") {
  const ModelRope trained{1e4, 32};
  const cli::Grid grid{
      .settings = {{.arg = "a", .policy = parse_rope("default", trained)},
                   {.arg = "b", .policy = parse_rope("yarn:factor=4", trained)},
                   {.arg = "c", .policy = parse_rope("linear:factor=2,logit_scale=2", trained)},
                   {.arg = "d", .policy = parse_rope("ntk:factor=2", trained)}},
      .lengths = {64}};
  // Two groups of requests: three passes of 64 fed tokens, and one of 100.
  cli::SettingPasses passes;
  passes.plans.resize(2);
  for (index_t i = 0; i < 3; ++i) {
    passes.plans[0].passes.push_back({.seq_len = 64, .begin = 65 * i, .end = 65 * (i + 1)});
  }
  passes.plans[1].passes.push_back({.seq_len = 100, .begin = 0, .end = 101});
  passes.needed = {{true, true, true}, {true}};
  std::vector<cli::SettingPasses> settings(4, passes);
  settings[1].needed = {{false, true, false}, {true}};
  settings[3].needed = {{false, false, true}, {false}};
  const auto batches = [&](index_t tokens) { return cli::batch_passes(grid, settings, 8, tokens); };
  const cli::GridBatches large = batches(1 << 20);
  std::string order;
  for (const cli::GridPass& p : large.passes) {
    order += grid.settings[p.setting].arg + std::to_string(p.group) + std::to_string(p.pass) + " ";
  }
  CHECK(order == "a00 a01 a02 a10 b01 b10 c00 c01 c02 c10 d02 ");
  using Ends = std::vector<std::size_t>;
  CHECK(large.ends == Ends{6, 10, 11});  // c has a logit scale of its own
  // 100 tokens take two panels of 64: 64 64 | 64 128 | 64 128 | ...
  CHECK(batches(192).ends == Ends{3, 5, 6, 9, 10, 11});
  CHECK(batches(1).ends == Ends{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
}

TEST_CASE("cli/plan: losses of passes come back from their file, up to any damage") {
  const TempDir folder;
  const std::string path = folder / "losses.bin";
  const auto no_pause = std::chrono::milliseconds(0);
  const std::vector<double> a = {1, 2, 3, 4}, b = {5.5, 6.25}, c = {0.125, 9};
  const std::vector<std::uint8_t> hits = {1, 0, 1, 0}, two = {0, 1};
  {
    cli::PassStore store(path, 7, three_passes(), no_pause);
    CHECK(store.restored() == 0);
    store.add(1, b, two);  // in any order
    store.add(0, a, hits);
    CHECK(store.has(0));
    CHECK_FALSE(store.has(2));
  }
  const std::string whole = file_content(path);
  {
    cli::PassStore store(path, 7, three_passes(), no_pause);
    CHECK(store.restored() == 2);
    CHECK(store.losses().offset == std::vector<std::size_t>{0, 4, 6, 8});
    CHECK(store.losses().nll == std::vector<double>{1, 2, 3, 4, 5.5, 6.25, 0, 0});
    CHECK(store.losses().top1 == std::vector<std::uint8_t>{1, 0, 1, 0, 0, 1, 0, 0});
    store.add(2, c, two);
  }
  CHECK(cli::PassStore(path, 7, three_passes()).restored() == 3);
  CHECK(cli::PassStore(path, 8, three_passes()).restored() == 0);  // another setting

  // Cut off or flipped anywhere: whole records before the damage, never wrong numbers.
  const std::size_t first = 32 + 2 * 9;
  REQUIRE(whole.size() == first + 32 + 4 * 9);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    folder.write("losses.bin", whole.substr(0, i));
    CHECK(cli::PassStore(path, 7, three_passes()).restored() == (i < first ? 0u : 1u));
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ 4);
    folder.write("losses.bin", flipped);
    cli::PassStore store(path, 7, three_passes(), no_pause);
    CHECK(store.restored() == (i < first ? 0u : 1u));
    CHECK(store.has(1) == (i >= first));
    if (i % 16 != 0) continue;
    if (!store.has(1)) store.add(1, b, two);  // going on repairs the file
    store.add(0, a, hits);
    CHECK(cli::PassStore(path, 7, three_passes()).restored() == 2);
  }
  cli::PassStore store(path, 7, three_passes());
  store.remove();
  CHECK_FALSE(file_exists(path));
  CHECK_THROWS_AS(store.add(0, b, two), Error);  // not as many as the pass scores
}

TEST_CASE("cli/plan: losses are written once the pause is over, and when asked to") {
  const TempDir folder;
  const std::vector<double> nll = {1, 2, 3, 4};
  const std::vector<std::uint8_t> hits = {1, 0, 1, 0};
  cli::PassStore store(folder / "l", 7, three_passes(), std::chrono::hours(1));
  store.add(0, nll, hits);
  CHECK_FALSE(file_exists(folder / "l"));
  store.flush();
  CHECK(cli::PassStore(folder / "l", 7, three_passes()).restored() == 1);
  cli::PassStore nowhere("", 7, three_passes(), std::chrono::milliseconds(0));
  nowhere.add(0, nll, hits);
  nowhere.flush();
  CHECK(nowhere.losses().nll[3] == 4);
}

TEST_CASE("cli/plan: the time left follows work, not tokens") {
  cli::Progress progress(true, "test", 2, 100);
  CHECK(progress.seconds_left() < 0);  // nothing to go by
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  progress.add(1000, 20);
  // A fifth of the work took what passed: four times that is left, whatever the tokens.
  const double left = progress.seconds_left(), passed = progress.seconds();
  CHECK(left > 0.1);
  CHECK(left <= 4 * passed);
  progress.skip(60);  // found done: half of the rest
  CHECK(progress.seconds_left() <= progress.seconds() * 1.0001);
  CHECK(cli::duration_text(3661.4) == "1:01:01");
  CHECK(cli::duration_text(59.6) == "0:01:00");
  CHECK(cli::duration_text(-1) == "?");
  CHECK(cli::duration_text(std::nan("")) == "?");
}

TEST_CASE("cli/plan: memory of process and machine is read") {
  CHECK(cli::kilobytes_of("MemTotal:  10 kB\nMemAvailable:    3 kB\n", "MemAvailable") == 3072);
  CHECK(cli::kilobytes_of("MemTotal:  10 kB\n", "MemAvailable") == -1);
  CHECK(cli::kilobytes_of("NotMemAvailable: 1 kB\nMemAvailable: 2 kB\n", "MemAvailable") == 2048);
  const cli::ProcessMemory before = cli::process_memory();
  CHECK(before.resident > 1'000'000);
  CHECK(before.peak_resident >= before.resident);
  CHECK(before.address_space >= before.resident);
  {
    const Buffer<float> taken(16 << 20);  // zeroed, so that it is there
    CHECK(cli::process_memory().resident > before.resident + (60 << 20));
  }
  const cli::MemoryRoom room = cli::memory_room();
  CHECK(room.bytes > 0);
  CHECK_FALSE(room.limit.empty());
  CHECK(cli::bytes_text(999) == "999 bytes");
  CHECK(cli::bytes_text(1.25e9) == "1.25 GB");
}

TEST_CASE("cli/plan: a dry run tells every cell's cost and writes nothing") {
  const Inputs in(4 * 101);
  const std::vector<std::string> before = in.folder.names();
  const std::vector<std::string> grid = {"--rope", "default",   "dynamic:factor=2", "--lengths",
                                         "50,100", "--dry-run", "--format",         "jsonl"};
  for (const char* command : {"sweep", "ppl"}) {
    std::vector<std::string> arguments = in.command(command, grid);
    if (command == std::string("ppl")) {
      arguments.erase(std::find(arguments.begin(), arguments.end(), "dynamic:factor=2"));
    }
    const Outcome run = run_program(in.folder, arguments);
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    CHECK(in.folder.names() == before);
    const std::vector<JsonDocument> rows = rows_of(run.out);
    REQUIRE(rows.size() == (command == std::string("ppl") ? 3 : 5));
    const LlamaConfig config{.hidden_size = 16,
                             .intermediate_size = 24,
                             .num_hidden_layers = 1,
                             .num_attention_heads = 2,
                             .num_key_value_heads = 1,
                             .head_dim = 8,
                             .vocab_size = 40,
                             .max_position_embeddings = 32};
    std::int64_t tokens = 0;
    double flops = 0, seconds = 0;
    for (std::size_t i = 0; i + 1 < rows.size(); ++i) {
      const JsonView row = rows[i].view();
      const index_t length = row.at("length").as_integer();
      // The static setting's lengths share the passes of the longest.
      const bool shared = row.at("rope_arg").as_string() == "default" && length == 50;
      CHECK(row.at("passes").as_integer() == (shared ? 0 : 4));
      CHECK(row.at("tokens").as_integer() == (shared ? 0 : 4 * length));
      CHECK(row.at("flops").as_number() == (shared ? 0 : 4 * forward_flops(config, length)));
      CHECK((row.at("seconds").as_number() > 0) == !shared);
      CHECK(row.at("peak_bytes").as_integer() > 1'000'000);
      tokens += row.at("tokens").as_integer();
      flops += row.at("flops").as_number();
      seconds += row.at("seconds").as_number();
    }
    const JsonView total = rows.back().view();
    CHECK(total.at("rope_arg").as_string() == "total");
    CHECK(total.at("tokens").as_integer() == tokens);
    CHECK(total.at("flops").as_number() == flops);
    CHECK(total.at("seconds").as_number() == doctest::Approx(seconds));
    CHECK(run.err.find("Gflop/s of products") != std::string::npos);
    CHECK(run.err.find("nothing was written") != std::string::npos);
  }
  // What a folder holds already costs nothing.
  std::vector<std::string> real = grid;
  real.erase(std::find(real.begin(), real.end(), "--dry-run"));
  real.insert(real.end(), {"--out", "r"});
  REQUIRE(in.run(real).exit_code == 0);
  real.push_back("--dry-run");
  const Outcome done = in.run(real);
  const std::vector<JsonDocument> rows = rows_of(done.out);
  REQUIRE(rows.size() == 5);
  CHECK(rows[0].view().at("state").as_string() == "done");
  CHECK(rows.back().view().at("flops").as_number() == 0);
}

TEST_CASE("cli/plan: the predicted peak is within a tenth of the measured one") {
  const TempDir folder;
  // 4.7 M weights; 6000 tokens: weights, workspace and program are of one size.
  folder.write("model.bin", checkpoint(256, 688, 4, 4, 4096, 64));
  folder.write("ids.u16", tiny_tokens(2 * 6001));
  std::vector<std::vector<std::string>> runs = {
      {"--model", "model.bin", "--tokens", "ids.u16", "--length", "3000"},
      {"--model", "model.bin", "--tokens", "ids.u16", "--length", "500", "--threads", "1"}};
  if (const auto model = shared_data("babyllama-105/model5000.bin")) {
    runs.push_back({"--model", *model, "--tokens", *shared_data("babyllama-105/windows_6x1025.u16"),
                    "--length", "1024"});
  }
  if (const auto model = shared_data("stories260K/stories260K.bin")) {
    runs.push_back({"--model", *model, "--tokenizer", *shared_data("stories260K/tok512.bin"),
                    "--text", *shared_data("tinystories-text/tinystories_sample.txt"), "--length",
                    "1024", "--windows", "4"});
  }
  for (const std::vector<std::string>& options : runs) {
    std::vector<std::string> arguments = {"ppl"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Outcome run = run_program(folder, arguments);
    INFO(options[1], " ", run.err);
    REQUIRE(run.exit_code == 0);
    const double measured = bytes_after(run.err, "peak memory ");
    const double predicted = bytes_after(run.err, "predicted ");
    CHECK(measured > 3e6);
    CHECK(std::fabs(predicted / measured - 1) < 0.1);
  }
}

TEST_CASE("cli/plan: a run that does not fit is refused with the arithmetic and a way out") {
  const Inputs in(3'000'000);
  const std::vector<std::string> before = in.folder.names();
  // The model takes about 400 bytes a token, so that a million tokens need more than the limit.
  const Outcome run =
      in.run_limited(RLIMIT_AS, 400'000'000, {"--length", "1400K", "--threads", "1", "--out", "r"});
  INFO(run.err);
  CHECK(run.exit_code == 5);
  CHECK(run.err.find("predicted peak") != std::string::npos);
  CHECK(run.err.find("workspace ") != std::string::npos);
  CHECK(run.err.find("RLIMIT_AS") != std::string::npos);
  CHECK(run.err.find("Give lengths of at most ") != std::string::npos);
  CHECK(run.out.empty());
  CHECK_FALSE(file_exists(in.folder / "r/results.jsonl"));
}
