// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "ropewalk/known_text.hpp"

#include "cli/rows.hpp"

using namespace ropewalk;

namespace {

template <class T>
T value_of(const cli::Row& row, const std::string& key) {
  for (const auto& [name, value] : row) {
    if (name == key) return std::get<T>(value);
  }
  FAIL("no " << key);
  return {};
}

}  // namespace

TEST_CASE("cli/known_text: floors, gaps and answers of windows by hand") {
  // Two windows of 5 ids, of which ids 1 .. 3 are scored; id 0 has no loss, id 4 is beyond.
  cli::KnownText known{.floor = {9, 1, 2, 3, 9, 9, 1, 1, 1, 9}, .window_tokens = 5};
  known.answers = {{{.first = 2, .count = 2, .fact = 0}, {.first = 3, .count = 2, .fact = 0}},
                   {{.first = 1, .count = 1, .fact = 0}, {.first = 2, .count = 2, .fact = 0}}};
  const ScoredLosses losses{
      .offset = {0, 3, 6}, .nll = {1.5, 2.5, 4, 1, 2, 3}, .top1 = {0, 1, 1, 1, 1, 0}};
  const cli::KnownFigures figures = cli::known_figures(known, losses, 3);
  CHECK(value_of<double>(figures.results, "floor") == 1.5);
  // Answers that end in time: ids 2-3 of both windows (right, wrong) and id 1 of the second.
  CHECK(value_of<double>(figures.results, "exact") == doctest::Approx(2.0 / 3));
  using Reals = std::vector<double>;
  CHECK(value_of<Reals>(figures.bins, "bin_floor") == Reals{1, 1.75});
  const Reals errors = value_of<Reals>(figures.bins, "bin_gap_se");
  REQUIRE(errors.size() == 2);
  CHECK(errors[0] == doctest::Approx(0.25));   // gaps 0.5 and 0: sd 0.354 over sqrt(2)
  CHECK(errors[1] == doctest::Approx(0.375));  // sums 1.5 and 3, a token each half of that
  CHECK(value_of<std::vector<std::int64_t>>(figures.bins, "distance") ==
        std::vector<std::int64_t>{1, 2});
  CHECK(value_of<std::vector<std::int64_t>>(figures.bins, "distance_answers") ==
        std::vector<std::int64_t>{1, 2});
  CHECK(value_of<Reals>(figures.bins, "distance_exact") == Reals{1, 0.5});
  CHECK(value_of<Reals>(figures.bins, "distance_nll") == Reals{1, (3.25 + 2.5) / 2});
  CHECK(cli::known_figures({}, losses, 3).results[0].second == cli::Value());
}

TEST_CASE("cli/known_text: the embedded model lies above its floor and looks up what is near") {
  const TempDir folder;
  const std::vector<std::string> words = {"sweep",     "--model", "embedded",  "--synthetic",
                                          "--windows", "12",      "--lengths", "256",
                                          "--format",  "jsonl",   "--quiet"};
  std::vector<std::string> by_position = words, by_distance = words;
  by_position.push_back("--by-position");
  by_distance.push_back("--by-distance");
  const Outcome positions = run_program(folder, by_position);
  INFO(positions.err);
  REQUIRE(positions.exit_code == 0);
  std::size_t bins = 0;
  for (const JsonDocument& row : rows_of(positions.out)) {
    const double gap = row.view().at("nll").as_number() - row.view().at("floor").as_number();
    CHECK(gap > -3 * row.view().at("gap_se").as_number());
    CHECK(gap < 0.6);  // a model that learnt nothing loses 2.5 nats
    ++bins;
  }
  CHECK(bins == 9);
  const Outcome distances = run_program(folder, by_distance);
  REQUIRE(distances.exit_code == 0);
  const std::vector<JsonDocument> rows = rows_of(distances.out);
  REQUIRE(rows.size() == 7);  // a record's value comes at least two tokens after the one before
  CHECK(rows.front().view().at("exact").as_number() > 0.9);
  CHECK(rows.back().view().at("exact").as_number() < rows.front().view().at("exact").as_number());

  const Outcome refused = run_program(
      folder, {"sweep", "--model", "embedded", "--text", "x", "--lengths", "8", "--by-distance"});
  CHECK(refused.exit_code == 2);
  CHECK(refused.err.find("--synthetic") != std::string::npos);
}
