// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/train/token_windows.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

TEST_CASE("train/token_windows: a permutation visits each once, another one each epoch") {
  for (const std::uint64_t size : {1u, 2u, 3u, 4u, 5u, 63u, 64u, 65u, 1000u}) {
    const Permutation one(size, {.seed = 1, .step = 0}), two(size, {.seed = 1, .step = 1});
    std::vector<bool> seen(size);
    std::uint64_t same = 0, fixed = 0;
    for (std::uint64_t i = 0; i < size; ++i) {
      REQUIRE(one(i) < size);
      CHECK(!seen[one(i)]);
      seen[one(i)] = true;
      same += one(i) == two(i);
      fixed += one(i) == i;
    }
    if (size >= 63) {  // in two random orders about one thing has the same place
      CHECK(same < 10);
      CHECK(fixed < 10);
    }
  }
}

TEST_CASE("train/token_windows: every window of an epoch once, targets within documents") {
  std::vector<TokenId> ids(103);
  std::iota(ids.begin(), ids.end(), 0);
  const std::vector<std::int64_t> cuts = {0, 10, 10, 23, 24, 50, 103};
  const auto is_start = [&](TokenId id) {
    return std::find(cuts.begin(), cuts.end(), id) != cuts.end();
  };
  for (const WindowOrder order : {WindowOrder::random, WindowOrder::given}) {
    const TokenWindows windows({ids, cuts}, 10, order, {.seed = 3});
    CHECK(windows.windows() == 10);
    for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
      std::set<TokenId> firsts;
      for (std::int64_t i = 0; i < 10; ++i) {
        const TrainingSequence s = windows.sequence(10 * epoch + i);
        REQUIRE(s.tokens.size() == 10);
        firsts.insert(s.tokens[0]);
        if (order == WindowOrder::given) CHECK(s.tokens[0] == 10 * i);
        std::vector<std::int32_t> starts = {0};
        for (std::int32_t t = 0; t < 10; ++t) {
          const TokenId id = s.tokens[static_cast<std::size_t>(t)];
          CHECK(id == s.tokens[0] + t);
          CHECK(s.targets[static_cast<std::size_t>(t)] == (is_start(id + 1) ? not_scored : id + 1));
          if (t > 0 && is_start(id)) starts.push_back(t);
        }
        starts.push_back(10);
        CHECK(s.cu_seqlens == starts);
      }
      CHECK(firsts.size() == 10);
    }
  }
  const TokenWindows across({ids, cuts}, 10, WindowOrder::given, {}, false);
  CHECK(across.sequence(0).targets[9] == 10);
  CHECK(error_of([&] {
          TokenWindows({ids, cuts}, 103, WindowOrder::given, {});
        }).kind == ErrorClass::usage);
}

TEST_CASE("train/token_windows: documents sorted by length keep their ids together") {
  std::vector<TokenId> ids = {1, 1, 1, 2, 3, 3, 4};
  std::vector<std::int64_t> cuts = {0, 3, 4, 6, 7};
  sort_documents(ids, cuts);
  CHECK(ids == std::vector<TokenId>{2, 4, 3, 3, 1, 1, 1});
  CHECK(cuts == std::vector<std::int64_t>{0, 1, 2, 4, 7});
}

TEST_CASE(
    "train/token_windows: loss weights go with their ids, weightless targets are not scored") {
  const std::vector<TokenId> ids = {0, 1, 2, 3, 4, 5, 6};
  const std::vector<std::int64_t> cuts = {0, 7};
  const std::vector<float> weights = {9, 0, 0.5f, 1, 0, 2, 3};
  const TokenWindows windows({ids, cuts, weights}, 3, WindowOrder::given, {});
  const TrainingSequence s = windows.sequence(1);
  CHECK(s.tokens == std::vector<TokenId>{3, 4, 5});
  CHECK(s.targets == std::vector<TokenId>{not_scored, 5, 6});
  CHECK(s.loss_weights == std::vector<float>{0, 2, 3});
  const std::vector<float> fewer(6);
  CHECK(error_of([&] {
          TokenWindows({ids, cuts, fewer}, 3, WindowOrder::given, {});
        }).kind == ErrorClass::usage);
}
