// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"

#include "cli/rows.hpp"

using namespace ropewalk;

namespace {

bool has_losses(const std::string& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().filename().string().starts_with("losses-")) return true;
  }
  return false;
}

/// Whether whole records of losses are there: the file alone may be there before any.
bool has_whole_losses(const std::string& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const bool large = entry.file_size(ignored) > 8192 && !ignored;  // a record has some 3500 bytes
    if (large && entry.path().filename().string().starts_with("losses-")) return true;
  }
  return false;
}

std::vector<std::string> sorted_lines(const std::string& path) {
  std::vector<std::string> lines = lines_of(file_content(path));
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("cli/resume: killed 30 times at random moments, a sweep of 40 cells ends with its rows") {
  const Inputs in(8 * 391);
  // Length-dependent settings: each of the 40 cells is a pass of its own.
  const std::vector<std::string> grid = {
      "--rope",    "dynamic:factor={2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21}",
      "--lengths", "200,390",
      "--format",  "jsonl"};
  const auto with_out = [&](const std::string& out) {
    return in.sweep(joined(grid, {"--out", out}));
  };
  const auto start = std::chrono::steady_clock::now();
  const Outcome whole = run_program(in.folder, with_out("whole"));
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  INFO(whole.err);
  REQUIRE(whole.exit_code == 0);
  REQUIRE(lines_of(whole.out).size() == 40);

  // Delays add up to about what the whole run takes, so that most kills hit a run in its middle,
  // wherever that is: while loading, between and within passes, rows and their syncs.
  const std::string results = in.folder / "killed/results.jsonl";
  int killed = 0, in_the_middle = 0;
  for (std::uint64_t i = 0; i < 30; ++i) {
    const Random random{.seed = 3, .stream = 1, .step = 0};
    const double delay = 2 * random.uniform(i) * seconds / 30;
    Program program(in.folder, with_out("killed"));
    std::this_thread::sleep_for(std::chrono::duration<double>(delay));
    program.signal(SIGKILL);
    const Outcome outcome = program.wait();
    const bool hit = outcome.exit_code == 128 + SIGKILL;
    const std::size_t rows = lines_of(file_content(results)).size();
    killed += hit ? 1 : 0;
    in_the_middle += hit && rows > 0 && rows < 40 ? 1 : 0;
  }
  CHECK(killed >= 10);
  CHECK(in_the_middle >= 3);
  MESSAGE(killed << " of 30 kills hit, " << in_the_middle << " of them with some rows done");

  const Outcome resumed = run_program(in.folder, with_out("killed"));
  INFO(resumed.err);
  CHECK(resumed.exit_code == 0);
  CHECK(resumed.out == whole.out);
  CHECK(sorted_lines(results) == sorted_lines(in.folder / "whole/results.jsonl"));
  CHECK(file_content(in.folder / "killed/results.csv") ==
        file_content(in.folder / "whole/results.csv"));
  CHECK(run_program(in.folder, {"export", "killed"}).out ==
        file_content(in.folder / "whole/results.csv"));
  CHECK_FALSE(has_losses(in.folder / "killed"));
}

TEST_CASE("cli/resume: a cell of many windows goes on in its middle") {
  const Inputs in(3000 * 391);  // longer than losses wait in memory, on a fast machine too
  const std::vector<std::string> grid = {"--rope", "default",  "theta=5e4", "--length",
                                         "390",    "--format", "jsonl"};
  const Outcome whole = in.run(joined(grid, {"--out", "whole"}));
  REQUIRE(whole.exit_code == 0);
  for (const int signal : {SIGKILL, SIGTERM}) {
    const std::string out = signal == SIGKILL ? "killed" : "stopped";
    Program program(in.folder, in.sweep(joined(grid, {"--out", out})));
    REQUIRE(wait_until([&] { return has_whole_losses(in.folder / out); }));
    program.signal(signal);
    const Outcome stopped = program.wait();
    CHECK(stopped.exit_code == (signal == SIGKILL ? 128 + SIGKILL : 143));
    if (signal == SIGTERM) {
      CHECK(stopped.err.find("the same command goes on from there") != std::string::npos);
    }
    CHECK(file_content(in.folder / (out + "/results.jsonl")).empty());
    const Outcome partial = run_program(in.folder, {"export", out});
    CHECK(partial.exit_code == 1);
    CHECK(partial.err.find("0 of 2 cells are there") != std::string::npos);
    const Outcome resumed = in.run(joined(grid, {"--out", out}));
    CHECK(resumed.err.find("of 3000 passes are there") != std::string::npos);
    CHECK(resumed.out == whole.out);
    CHECK_FALSE(has_losses(in.folder / out));
  }
}

TEST_CASE("cli/resume: the second signal ends at once") {
  const Inputs in(3000 * 391);
  Program program(in.folder,
                  in.sweep({"--length", "390", "--rope", "default", "theta=2e4", "--out", "r"}));
  REQUIRE(wait_until([&] { return has_losses(in.folder / "r"); }));
  program.signal(SIGINT);
  program.signal(SIGINT);
  CHECK(program.wait().exit_code == 130);
}

TEST_CASE("cli/resume: a full disk is exit 5, and what was written before stays good") {
  const Inputs in;
  const std::vector<std::string> grid = {"--rope",    "theta={1e3,2e3,3e3,4e3,5e3,6e3}",
                                         "--lengths", "8,16",
                                         "--format",  "jsonl",
                                         "--out",     "r"};
  // Room for the manifest and some rows of about 1.4 kB.
  const Outcome full = in.run_limited(RLIMIT_FSIZE, 6000, grid);
  INFO(full.err);
  CHECK(full.exit_code == 5);
  CHECK(full.err.find("results.jsonl") != std::string::npos);
  const std::size_t rows = lines_of(file_content(in.folder / "r/results.jsonl")).size();
  CHECK(rows >= 1);
  CHECK(rows < 12);
  const Outcome resumed = in.run(grid);
  INFO(resumed.err);
  CHECK(resumed.exit_code == 0);
  CHECK(resumed.out == in.run(joined(grid, {"--out", "r"})).out);
  std::vector<std::string> fresh = grid;
  fresh.back() = "fresh";
  CHECK(resumed.out == in.run(fresh).out);
}

TEST_CASE("cli/resume: a results folder that is deleted meanwhile ends the run with exit 7") {
  const Inputs in(200 * 391);
  std::vector<std::string> grid = {"--rope"};
  for (int i = 1; i <= 60; ++i) grid.push_back("theta=" + std::to_string(1000 * i));
  Program program(in.folder, in.sweep(joined(grid, {"--lengths", "390", "--out", "r"})));
  REQUIRE(wait_for_lines(in.folder / "r/results.jsonl", 1));
  std::filesystem::remove_all(in.folder / "r");
  const Outcome run = program.wait();
  INFO(run.err);
  CHECK(run.exit_code == 7);
  // Whichever was to be written next: a row or the losses of a pass.
  CHECK(run.err.find("error: r/") != std::string::npos);
}

TEST_CASE("cli/resume: folders that cannot be written are refused before anything is computed") {
  const Inputs in;
  const Outcome proc = in.run({"--lengths", "8", "--out", "/proc/self/r"});
  CHECK(proc.exit_code == 7);
  CHECK(proc.err.find("/proc/self/r") != std::string::npos);
  CHECK(proc.out.empty());
  if (::geteuid() == 0) {
    MESSAGE("skipped: folders without write permission, which root may write to");
    return;
  }
  std::filesystem::create_directory(in.folder / "locked");
  std::filesystem::permissions(in.folder / "locked", std::filesystem::perms::owner_read |
                                                         std::filesystem::perms::owner_exec);
  const Outcome locked = in.run({"--lengths", "8", "--out", "locked/r"});
  CHECK(locked.exit_code == 7);
  CHECK(locked.err.find("locked/r") != std::string::npos);
  std::filesystem::permissions(in.folder / "locked", std::filesystem::perms::owner_all);
}

TEST_CASE("cli/resume: export prints any stored grid in its order, and names what is wrong") {
  const Inputs in;
  const std::vector<std::string> grid = {"--rope", "ntk:factor=4", "default", "--lengths",
                                         "16,8",   "--out",        "r"};
  const Outcome table = in.run(grid);
  const Outcome jsonl = in.run(joined(grid, {"--format", "jsonl"}));
  const Outcome csv = in.run(joined(grid, {"--format", "csv"}));
  CHECK(run_program(in.folder, {"export", "r"}).out == csv.out);
  CHECK(run_program(in.folder, {"export", "r", "--format", "jsonl"}).out == jsonl.out);
  CHECK(run_program(in.folder, {"export", "r", "--format", "table"}).out == table.out);
  CHECK(file_content(in.folder / "r/results.csv") == csv.out);

  // Order of the lines does not matter, an incomplete last one is told, damage is refused.
  const std::string results = file_content(in.folder / "r/results.jsonl");
  std::vector<std::string> lines = lines_of(results);
  std::reverse(lines.begin(), lines.end());
  std::string reversed;
  for (const std::string& line : lines) reversed += line + "\n";
  in.folder.write("r/results.jsonl", reversed);
  CHECK(run_program(in.folder, {"export", "r"}).out == csv.out);
  in.folder.write("r/results.jsonl", results.substr(0, results.size() - 20));
  const Outcome torn = run_program(in.folder, {"export", "r"});
  CHECK(torn.exit_code == 1);
  CHECK(torn.err.find("incomplete") != std::string::npos);
  CHECK(torn.err.find("3 of 4 cells") != std::string::npos);
  CHECK(lines_of(torn.out).size() == 4);
  std::string damaged = results;
  damaged[30] ^= 1;
  in.folder.write("r/results.jsonl", damaged);
  const Outcome corrupt = run_program(in.folder, {"export", "r"});
  CHECK(corrupt.exit_code == 6);
  CHECK(corrupt.err.find("line 1") != std::string::npos);
  CHECK(run_program(in.folder, {"export", "none"}).exit_code == 7);
  CHECK(run_program(in.folder, {"export"}).exit_code == 2);
}
