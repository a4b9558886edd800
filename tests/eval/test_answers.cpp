// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/eval/answers.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

TEST_CASE("eval/answers: an answer is exact when each of its tokens was the argmax") {
  const std::vector<TokenId> tokens = {5, 6, 7, 8, 9};
  // Of targets 6, 7, 8, 9; the first is no part of the answer.
  const std::vector<HeadResult> results = {{9, 0}, {0.25, 7}, {0.5, 8}, {1.5, 9}};
  const AnswerSpan answer{.first = 2, .count = 3, .fact = 0};
  AnswerScore score = score_answer(answer, tokens, results, 4);
  CHECK(score.stream == 4);
  CHECK(score.distance == 2);
  CHECK(score.exact);
  CHECK(score.nll == 0.75);
  CHECK(std::isnan(score.gap));
  for (std::size_t i = 0; i < results.size(); ++i) {
    CAPTURE(i);
    std::vector<HeadResult> other = results;
    other[i].argmax = 3;
    CHECK(score_answer(answer, tokens, other).exact == (i == 0));
  }

  // The wrong variant is two tokens of context, of which the second is predicted, and the answer.
  const std::vector<HeadResult> wrong = {{9, 0}, {3, 7}, {4, 8}, {5, 9}};
  CHECK(answer_gap(score, answer, wrong) == 4 - 0.75);
}

TEST_CASE("eval/answers: bins hold octaves of distance, errors are those of independent streams") {
  std::vector<AnswerScore> scores;
  // Distances 4 to 7, one answer a stream: nll 1, 2, 3, 6; two exact.
  scores.push_back({.stream = 0, .distance = 4, .exact = true, .nll = 1, .gap = 2});
  scores.push_back({.stream = 1, .distance = 7, .exact = true, .nll = 2, .gap = 4});
  scores.push_back({.stream = 2, .distance = 5, .exact = false, .nll = 3});
  scores.push_back({.stream = 3, .distance = 6, .exact = false, .nll = 6});
  // Distance 8, from two streams, of two answers and of one.
  scores.push_back({.stream = 3, .distance = 8, .exact = true, .nll = 1});
  scores.push_back({.stream = 0, .distance = 15, .exact = true, .nll = 5});
  scores.push_back({.stream = 3, .distance = 9, .exact = true, .nll = 3});
  scores.push_back({.stream = 9, .distance = 1, .exact = false, .nll = 0.5});
  const std::vector<DistanceBin> bins = answers_by_distance(scores);
  REQUIRE(bins.size() == 3);

  CHECK(bins[0].distance == 1);
  CHECK(bins[0].answers == 1);
  CHECK(bins[0].nll.mean == 0.5);
  CHECK(std::isnan(bins[0].nll.se));
  CHECK(std::isnan(bins[0].gap.mean));

  CHECK(bins[1].distance == 4);
  CHECK(bins[1].answers == 4);
  CHECK(bins[1].streams == 4);
  CHECK(bins[1].exact.mean == 0.5);
  CHECK(bins[1].nll.mean == 3);
  // Deviations -2, -1, 0, 3: variance 14 / 3, over 4 streams. The square root rounds once.
  CHECK(bins[1].nll.se == doctest::Approx(std::sqrt(14.0 / 3 / 4)).epsilon(1e-15));
  CHECK(bins[1].gap.mean == 3);
  CHECK(bins[1].gap.se == doctest::Approx(1).epsilon(1e-15));  // 2 and 4

  CHECK(bins[2].distance == 8);
  CHECK(bins[2].answers == 3);
  CHECK(bins[2].streams == 2);
  CHECK(bins[2].exact.mean == 1);
  CHECK(bins[2].exact.se == 0);
  CHECK(bins[2].nll.mean == 3);
  // Sums of deviations of the streams: (1 - 3) + (3 - 3) = -2 and 2; sqrt(8 * 2 / 1) / 3.
  CHECK(bins[2].nll.se == doctest::Approx(4.0 / 3).epsilon(1e-15));
}

TEST_CASE("eval/answers: what cannot be scored is refused") {
  const std::vector<TokenId> tokens = {1, 2, 3};
  const std::vector<HeadResult> results(2);
  const auto score = [&](AnswerSpan a, std::span<const HeadResult> r) {
    return outcome_of([&] { score_answer(a, tokens, r); });
  };
  CHECK(score({.first = 1, .count = 2}, results) == "accepted");
  CHECK(score({.first = 0, .count = 1}, results) == "usage");
  CHECK(score({.first = 1, .count = 0}, results) == "usage");
  CHECK(score({.first = 1, .count = 3}, results) == "usage");
  CHECK(score({.first = 1, .count = std::numeric_limits<index_t>::max()}, results) == "usage");
  CHECK(score({.first = 1, .count = 1}, std::span(results).first(1)) == "usage");
  CHECK(outcome_of([&] { answer_gap({}, {.first = 1, .count = 1}, results); }) == "usage");
  CHECK(outcome_of([&] { answers_by_distance({{.distance = 0}}); }) == "usage");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(outcome_of([&] { answers_by_distance({{.distance = 1, .nll = nan}}); }) == "numeric");
  CHECK(answers_by_distance({}).empty());
}
