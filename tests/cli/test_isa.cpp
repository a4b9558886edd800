// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "cli/rows.hpp"

namespace ropewalk {
namespace {

struct Isa {
  std::string name;
  bool runs;  ///< on this machine
};

/// Instruction sets that --version says this executable holds.
std::vector<Isa> compiled_isas(const TempDir& folder) {
  const std::string report = run_program(folder, {"--version"}).out;
  const std::string start = ", of ";
  const std::size_t line = report.find("\nisa: ");
  REQUIRE(line != std::string::npos);
  std::size_t at = report.find(start, line);
  REQUIRE(at != std::string::npos);
  at += start.size();
  std::istringstream names(report.substr(at, report.find('\n', at) - at));
  std::vector<Isa> isas;
  for (std::string name; names >> name;) {
    if (name.back() == ',') name.pop_back();
    const bool missing = name.front() == '(';
    isas.push_back({missing ? name.substr(1, name.size() - 2) : name, !missing});
  }
  return isas;
}

TEST_CASE("cli/isa: losses have the same bits on every instruction set of the executable") {
  const Inputs in(1300);
  std::string losses;
  int compared = 0;
  for (const Isa& isa : compiled_isas(in.folder)) {
    INFO("instruction set: ", isa.name);
    const Outcome run = run_program(
        in.folder, in.command("ppl", {"--rope", "yarn:factor=8", "--length", "600", "--isa",
                                      isa.name, "--nll-out", isa.name + ".npy", "--quiet"}));
    INFO(run.err);
    REQUIRE(run.exit_code == (isa.runs ? 0 : 4));
    if (!isa.runs) {
      CHECK(run.err.find("--isa") != std::string::npos);
      CHECK(run.err.find("portable") != std::string::npos);  // names what there is
      continue;
    }
    const std::string bytes = file_content(in.folder / (isa.name + ".npy"));
    REQUIRE(bytes.size() > 1200 * sizeof(float));  // two windows: longer than a block of keys
    if (losses.empty()) losses = bytes;
    CHECK(bytes == losses);
    ++compared;
  }
  CHECK(compared >= 1);
}

TEST_CASE("cli/isa: bf16 by matrix tiles says so, and is not continued in another order of sums") {
  const Inputs in(700);
  bool has_tiles = false;
  for (const Isa& isa : compiled_isas(in.folder)) has_tiles |= isa.name == "amx" && isa.runs;
  if (!has_tiles) {
    MESSAGE("skipped: the executable or this machine has no matrix tiles");
    return;
  }
  const auto sweep = [&](const std::string& isa, const std::string& dtype) {
    return run_program(
        in.folder,
        in.command("sweep", {"--rope", "default", "--lengths", "100", "--dtype", dtype, "--isa",
                             isa, "--out", "run-" + dtype, "--format", "jsonl", "--quiet"}));
  };
  const Outcome tiles = sweep("amx", "bf16");
  INFO(tiles.err);
  REQUIRE(tiles.exit_code == 0);
  CHECK(tiles.out.find("k512-t32\"") != std::string::npos);
  CHECK(sweep("amx", "bf16").out == tiles.out);
  const Outcome pairs = sweep("portable", "bf16");
  CHECK(pairs.exit_code == 6);
  CHECK(pairs.err.find("numerics_id") != std::string::npos);
  // Floats add up alike on all sets.
  const Outcome floats = sweep("amx", "f32");
  CHECK(floats.out.find("k512\"") != std::string::npos);
  CHECK(sweep("portable", "f32").exit_code == 0);
}

TEST_CASE("cli/isa: selftest compares every instruction set, the chosen one is the widest") {
  const TempDir folder;
  const Outcome run = run_program(folder, {"selftest"});
  INFO(run.out, run.err);
  CHECK(run.exit_code == 0);
  CHECK(run.out.find("differ") == std::string::npos);
  bool first = true;
  for (const Isa& isa : compiled_isas(folder)) {
    CHECK((run.out.find("\n" + isa.name + ": gemm ") != std::string::npos) == isa.runs);
    if (isa.runs && std::exchange(first, false)) {
      CHECK(run.out.find("isa chosen: " + isa.name + "\n") == 0);
    }
  }
}

}  // namespace
}  // namespace ropewalk
