// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdlib>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/train/mixture.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

TEST_CASE("train/mixture: each part keeps its share of the tokens, whatever sequences it gives") {
  const std::vector<double> shares = {7, 2, 1};
  MixtureDealer dealer(shares);
  std::vector<std::int64_t> tokens(3), sequences(3);
  std::int64_t total = 0;
  for (int n = 0; n < 3000; ++n) {
    const std::size_t part = dealer.next();
    CHECK(dealer.dealt()[part].sequences == sequences[part]);
    // Long ones of the rarest part, short ones of all.
    const index_t size = part == 2 ? 400 : 1 + (n * 37) % 64;
    dealer.deal(part, size);
    ++sequences[part];
    tokens[part] += size;
    total += size;
    for (std::size_t p = 0; p < 3; ++p) {
      const double share = shares[p] / 10 * static_cast<double>(total);
      CHECK(std::fabs(static_cast<double>(tokens[p]) - share) <= 800);
    }
  }
  CHECK(sequences[2] > 10);
}

TEST_CASE("train/mixture: goes on where it was") {
  MixtureDealer dealer({0.7, 0.2, 0.1});
  for (int n = 0; n < 77; ++n) dealer.deal(dealer.next(), 1 + n % 5);
  MixtureDealer resumed({0.7, 0.2, 0.1}, dealer.dealt());
  for (int n = 0; n < 50; ++n) {
    const std::size_t part = dealer.next();
    CHECK(resumed.next() == part);
    CHECK(resumed.dealt()[part].sequences == dealer.dealt()[part].sequences);
    dealer.deal(part, 1 + n % 7);
    resumed.deal(part, 1 + n % 7);
  }
}

TEST_CASE("train/mixture: refuses shares of nothing") {
  CHECK(error_of([] { MixtureDealer dealer(std::vector<double>{}); }).kind == ErrorClass::usage);
  CHECK(error_of([] { MixtureDealer dealer({1.0, 0.0}); }).kind == ErrorClass::usage);
  CHECK(error_of([] { MixtureDealer dealer({1.0}, {{1, 2}, {3, 4}}); }).kind == ErrorClass::usage);
}
