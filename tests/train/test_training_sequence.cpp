// SPDX-License-Identifier: Apache-2.0
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/train/training_sequence.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

TEST_CASE("train/training_sequence: only answers are learnt") {
  const std::vector<TokenId> ids = {10, 11, 12, 13, 14, 15};
  TrainingSequence s = next_token_sequence(ids);
  CHECK(s.tokens == std::vector<TokenId>{10, 11, 12, 13, 14});
  CHECK(s.targets == std::vector<TokenId>{11, 12, 13, 14, 15});
  const AnswerSpan answers[] = {{.first = 1, .count = 1, .fact = 0},
                                {.first = 4, .count = 2, .fact = 2}};
  learn_answers_alone(s, answers);
  CHECK(s.targets == std::vector<TokenId>{11, not_scored, not_scored, 14, 15});
  const AnswerSpan beyond[] = {{.first = 5, .count = 2, .fact = 2}};
  CHECK(error_of([&] { learn_answers_alone(s, beyond); }).kind == ErrorClass::usage);
  CHECK(error_of([&] { next_token_sequence(std::span(ids).first(1)); }).kind == ErrorClass::usage);
}

TEST_CASE("train/training_sequence: windows cut documents further") {
  std::vector<TokenId> ids(11);
  std::iota(ids.begin(), ids.end(), 0);
  TrainingSequence s = next_token_sequence(ids);
  cut_into_windows(s, 4);
  CHECK(s.cu_seqlens == std::vector<std::int32_t>{0, 4, 8, 10});
  s.cu_seqlens = {0, 3, 8, 10};
  cut_into_windows(s, 4);
  CHECK(s.cu_seqlens == std::vector<std::int32_t>{0, 3, 4, 8, 10});
  CHECK(s.targets[3] == 4);  // across the cut
}

TEST_CASE("train/training_sequence: the window grows from its start to the whole length") {
  const WindowSchedule schedule{.from = 64, .share = 0.5};
  schedule.check(256);
  CHECK(schedule.at(0, 100, 256) == 64);
  CHECK(schedule.at(25, 100, 256) == 160);
  CHECK(schedule.at(49, 100, 256) == 252);
  for (const std::int64_t step : {50, 51, 99}) CHECK(schedule.at(step, 100, 256) == 256);
  for (std::int64_t step = 1; step < 100; ++step) {
    CHECK(schedule.at(step, 100, 256) >= schedule.at(step - 1, 100, 256));
  }
  CHECK(WindowSchedule{}.at(0, 100, 256) == 256);
  CHECK(error_of([] { WindowSchedule{.from = 300}.check(256); }).kind == ErrorClass::usage);
  CHECK(error_of([] { WindowSchedule{.from = 3, .share = 0}.check(256); }).kind ==
        ErrorClass::usage);
}
