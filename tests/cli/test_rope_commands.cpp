// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/io/json.hpp"

#include "cli/program.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// The JSON lines of a program's stdout.
std::vector<JsonDocument> json_lines(const std::string& out) {
  std::vector<JsonDocument> rows;
  for (std::size_t at = 0; at < out.size();) {
    const std::size_t end = out.find('\n', at);
    rows.push_back(parse_json(out.substr(at, end - at), "stdout"));
    at = end + 1;
  }
  return rows;
}

}  // namespace

TEST_CASE("cli/rope_show: the channels that rotate and the scales of logits") {
  const TempDir folder;
  const Outcome shown = run_program(
      folder,
      {"rope", "show",
       "default:rope_theta=10000,rotary_dim=4,rotary_offset=4,logit_scale=1.5,logn_length=4K",
       "--head-dim", "8", "--format", "jsonl"});
  REQUIRE(shown.exit_code == 0);
  const std::vector<JsonDocument> rows = json_lines(shown.out);
  REQUIRE(rows.size() == 1);
  const JsonView row = rows[0].view();
  CHECK(row.at("rope").as_string() ==
        "default:rope_theta=10000,rotary_dim=4,rotary_offset=4,logit_scale=1.5,logn_length=4096");
  CHECK(row.at("head_dim").as_integer() == 8);
  CHECK(row.at("rotary_dim").as_integer() == 4);
  CHECK(row.at("rotary_offset").as_integer() == 4);
  CHECK(row.at("pairs").as_string() == "half_split (4, 6) (5, 7); interleaved (4, 5) (6, 7)");
  CHECK(row.at("logit_scale").as_number() == 1.5);
  CHECK(row.at("logn_length").as_integer() == 4096);
  CHECK(row.at("logn_clip").as_bool());
  CHECK(row.at("inv_freq").elements().size() == 2);
  CHECK(row.at("inv_freq").elements().at(1).as_number() == 0.01);

  // Pairs that stand still have a frequency of 0 and no wavelength.
  const Outcome still = run_program(folder, {"rope", "show", "p_rope:p=0.5,rope_theta=1e4",
                                             "--head-dim", "8", "--format", "jsonl"});
  REQUIRE(still.exit_code == 0);
  const std::vector<JsonDocument> p = json_lines(still.out);
  CHECK(p.at(0).view().at("inv_freq").elements().at(2).as_number() == 0);
  CHECK(p.at(0).view().at("wavelength").elements().at(2).is_null());
  CHECK(p.at(0).view().at("logn_length").is_null());

  // A switching method needs the length; lists must fit the head.
  const std::string list =
      "longrope:rope_theta=1e4,short_factor=[1,1],long_factor=[1,2],factor=2,"
      "original_max_position_embeddings=64";
  const Outcome no_length = run_program(folder, {"rope", "show", list, "--head-dim", "4"});
  CHECK(no_length.exit_code == 2);
  CHECK(contains(no_length.err, "--length"));
  const Outcome misfit =
      run_program(folder, {"rope", "show", list, "--head-dim", "8", "--length", "65"});
  CHECK(misfit.exit_code == 2);
  CHECK(contains(misfit.err, "short_factor"));
  const Outcome odd = run_program(
      folder,
      {"rope", "show", "default:rope_theta=1e4,partial_rotary_factor=0.3", "--head-dim", "10"});
  CHECK(odd.exit_code == 2);
  CHECK(contains(odd.err, "Give rotary_dim"));
}

TEST_CASE("cli/rope_compare: hashes, and the pairs that differ") {
  const TempDir folder;
  const std::string list =
      "longrope:rope_theta=10000,short_factor=[1,1],long_factor=[1,2],factor=1,"
      "original_max_position_embeddings=64";
  const Outcome jsonl =
      run_program(folder, {"rope", "compare", "theta=10000", list, "linear:factor=1,rope_theta=1e4",
                           "default:rope_theta=1e4,logn_length=8", "--head-dim", "4", "--length",
                           "65", "--format", "jsonl"});
  REQUIRE(jsonl.exit_code == 0);
  const std::vector<JsonDocument> rows = json_lines(jsonl.out);
  REQUIRE(rows.size() == 4);
  const auto view = [&](std::size_t i) { return rows[i].view(); };
  CHECK(view(0).at("same").as_bool());
  CHECK(!view(1).at("same").as_bool());
  CHECK(view(1).at("differing_pairs").as_integer() == 1);
  CHECK(view(1).at("ratio").elements().at(0).as_number() == 1);
  CHECK(view(1).at("ratio").elements().at(1).as_number() == 0.5);
  CHECK(view(1).at("besides").elements().empty());
  CHECK(view(2).at("same").as_bool());
  CHECK(view(2).at("rope_hash").as_string() == view(0).at("rope_hash").as_string());
  CHECK(view(3).at("differing_pairs").as_integer() == 0);
  CHECK(!view(3).at("same").as_bool());
  CHECK(view(3).at("besides").elements().at(0).as_string() == "logn");

  const Outcome table = run_program(
      folder, {"rope", "compare", "theta=10000", list, "--head-dim", "4", "--length", "65"});
  REQUIRE(table.exit_code == 0);
  CHECK(contains(table.out, "1 of 2 pairs differ from [1]"));
  CHECK(contains(table.out, "[2]/[1]"));
  const Outcome one = run_program(folder, {"rope", "compare", "theta=10000"});
  CHECK(one.exit_code == 2);
  CHECK(contains(one.err, "two or more"));
}
