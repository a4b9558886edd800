// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/train/document_sequences.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

/// Documents of 1 to 40 ids, the ids ascending over all.
struct Library {
  std::vector<TokenId> ids = {};
  std::vector<std::int64_t> cuts = {0};

  Library() {
    for (std::int64_t d = 0; d < 200; ++d) cuts.push_back(cuts.back() + 1 + d * d % 40);
    ids.resize(static_cast<std::size_t>(cuts.back()));
    std::iota(ids.begin(), ids.end(), 0);
  }
};

}  // namespace

TEST_CASE("train/document_sequences: each target of each document once an epoch") {
  const Library library;
  DocumentSequences sequences({library.ids, library.cuts}, 16, 64, {.seed = 2});
  std::set<TokenId> targets;  // every id but the first of a document
  for (std::size_t i = 0; i < library.ids.size(); ++i) {
    if (!std::ranges::binary_search(library.cuts, static_cast<std::int64_t>(i))) {
      targets.insert(library.ids[i]);
    }
  }
  std::vector<TokenId> firsts[2];
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    std::multiset<TokenId> seen;
    for (std::int64_t i = 0; i < sequences.sequences(); ++i) {
      const std::int64_t at = epoch * sequences.sequences() + i;
      const TrainingSequence s = sequences.sequence(at);
      REQUIRE(std::ssize(s.tokens) == sequences.size(at));
      CHECK(s.tokens.size() <= 16);
      for (std::size_t t = 0; t < s.tokens.size(); ++t) CHECK(s.targets[t] == s.tokens[t] + 1);
      seen.insert(s.targets.begin(), s.targets.end());
      firsts[epoch].push_back(s.tokens[0]);
    }
    CHECK(std::ranges::equal(seen, targets));
  }
  CHECK(firsts[0] != firsts[1]);
}

TEST_CASE("train/document_sequences: neighbours are of similar length") {
  const Library library;
  DocumentSequences sequences({library.ids, library.cuts}, 40, 128, {.seed = 2});
  // Runs of 128 tokens differ by little within; in random order neighbours would differ by a third
  // of the range, 13, on average.
  double steps = 0;
  bool back = false;
  for (std::int64_t i = 1; i < sequences.sequences(); ++i) {
    steps += static_cast<double>(std::abs(sequences.size(i) - sequences.size(i - 1)));
    back = back || sequences.size(i) < sequences.size(i - 1);
  }
  CHECK(steps / static_cast<double>(sequences.sequences() - 1) < 4);
  CHECK(back);  // not one sorted list
}

TEST_CASE("train/document_sequences: loss weights, and what has no target is left out") {
  const std::vector<TokenId> ids = {1, 2, 3, 4, 5, 6, 7};
  const std::vector<std::int64_t> cuts = {0, 4, 6, 7};
  const std::vector<float> weights = {0, 0, 1, 1, 0, 0, 1};
  DocumentSequences sequences({ids, cuts, weights}, 8, 8, {});
  REQUIRE(sequences.sequences() == 1);  // the second weighs nothing, the third has one id
  const TrainingSequence s = sequences.sequence(0);
  CHECK(s.tokens == std::vector<TokenId>{1, 2, 3});
  CHECK(s.targets == std::vector<TokenId>{not_scored, 3, 4});
  CHECK(s.loss_weights == std::vector<float>{0, 1, 1});
  const std::vector<std::int64_t> single = {0, 1};
  CHECK(error_of([&] {
          DocumentSequences none({std::span(ids).first(1), single}, 8, 8, {});
        }).kind == ErrorClass::usage);
}
