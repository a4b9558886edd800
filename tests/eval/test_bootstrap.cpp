// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/eval/bootstrap.hpp"
#include "ropewalk/eval/protocol_presets.hpp"

#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

std::vector<SeriesItem> unit_items(const std::vector<double>& x) {
  std::vector<SeriesItem> items;
  for (const double v : x) items.push_back({v, 1});
  return items;
}

/// x_t = phi x_{t-1} + e_t, e standard normal, started in its stationary distribution.
std::vector<double> ar1(std::size_t n, double phi, std::uint32_t stream) {
  const Random random{.seed = 11, .stream = stream};
  std::vector<double> x(n);
  double state = random.normal(0) / std::sqrt(1 - phi * phi);
  for (std::size_t t = 0; t < n; ++t) {
    x[t] = state;
    state = std::fma(phi, state, random.normal(t + 1));
  }
  return x;
}

/// What `replicates` -> infinity tends to when the length divides n: the variance of one block's
/// mean over all n starts of the ring, over the number of blocks.
double exact_error(const std::vector<double>& x, std::size_t length) {
  const std::size_t n = x.size();
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(n);
  double squares = 0;
  for (std::size_t s = 0; s < n; ++s) {
    double block = 0;
    for (std::size_t i = 0; i < length; ++i) block += x[(s + i) % n];
    const double d = block / static_cast<double>(length) - mean;
    squares += d * d;
  }
  return std::sqrt(squares / static_cast<double>(n) * static_cast<double>(length) /
                   static_cast<double>(n));
}

/// A plan of windows of `scored` tokens each, `per_text` windows a text.
WindowPlan plan_of(index_t windows, index_t scored, index_t per_text) {
  WindowPlan plan{.protocol = {.window = scored + 1, .stride = scored + 1}};
  for (index_t w = 0; w < windows; ++w) {
    plan.windows.push_back({.text = w / per_text,
                            .begin = w * (scored + 1),
                            .end = (w + 1) * (scored + 1),
                            .first_scored = 1});
  }
  return plan;
}
ScoredLosses losses_of(const WindowPlan& plan, std::vector<double> nll) {
  ScoredLosses out{.offset = {0}, .nll = std::move(nll), .top1 = {}};
  for (const ScoredWindow& w : plan.windows) {
    out.offset.push_back(out.offset.back() + static_cast<std::size_t>(w.num_scored()));
  }
  REQUIRE(out.offset.back() == out.nll.size());
  out.top1.resize(out.nll.size());
  return out;
}

}  // namespace

TEST_CASE("eval/bootstrap: the closed form of every block length, on iid and correlated data") {
  for (const double phi : {0.0, 0.8}) {
    const std::vector<double> x = ar1(120, phi, 3);
    for (const index_t length : {1, 2, 5, 12, 40, 60}) {
      CAPTURE(phi);
      CAPTURE(length);
      const BootstrapEstimate e =
          bootstrap_mean(unit_items(x), {.block_length = length, .replicates = 8000});
      CHECK(e.block_length == length);
      CHECK(e.items == 120);
      CHECK(e.mean == doctest::Approx(std::accumulate(x.begin(), x.end(), 0.0) / 120));
      // A deviation of 8000 replicates is known to 1 / sqrt(16000) = 0.8 %: five times that.
      CHECK(e.se ==
            doctest::Approx(exact_error(x, static_cast<std::size_t>(length))).epsilon(0.04));
    }
  }
}

TEST_CASE("eval/bootstrap: a few items against every possible resample") {
  // Three items drawn singly: 27 resamples of equal chance.
  const std::vector<SeriesItem> items = {{1, 1}, {8, 2}, {3, 3}};
  double sum = 0, squares = 0;
  for (int i = 0; i < 27; ++i) {
    double total = 0, weight = 0;
    for (int d = 0, rest = i; d < 3; ++d, rest /= 3) {
      total += items[static_cast<std::size_t>(rest % 3)].total;
      weight += items[static_cast<std::size_t>(rest % 3)].weight;
    }
    sum += total / weight;
    squares += total / weight * (total / weight);
  }
  const double deviation = std::sqrt(squares / 27 - sum / 27 * (sum / 27));
  const BootstrapEstimate e = bootstrap_mean(items, {.block_length = 1, .replicates = 20000});
  CHECK(e.mean == 2);
  CHECK(e.se == doctest::Approx(deviation).epsilon(0.025));
  CHECK(e.low == 1);  // the extremes have chance 1/27 > 2.5 %
  CHECK(e.high == 4);
}

TEST_CASE("eval/bootstrap: a cut last block, a block of all, constant series") {
  // Length 3 in 4 items: a block of three and a block of one.
  const std::vector<double> x = {1, 2, 4, 8};
  double sum = 0, squares = 0;
  for (std::size_t a = 0; a < 4; ++a) {
    for (std::size_t b = 0; b < 4; ++b) {
      const double mean = (x[a] + x[(a + 1) % 4] + x[(a + 2) % 4] + x[b]) / 4;
      sum += mean;
      squares += mean * mean;
    }
  }
  const double deviation = std::sqrt(squares / 16 - sum / 16 * (sum / 16));
  const BootstrapEstimate cut =
      bootstrap_mean(unit_items(x), {.block_length = 3, .replicates = 20000});
  CHECK(cut.se == doctest::Approx(deviation).epsilon(0.025));
  CHECK(bootstrap_mean(unit_items(x), {.block_length = 4}).se < 1e-12);  // the ring as a whole
  const BootstrapEstimate constant = bootstrap_mean(unit_items(std::vector<double>(50, 2.5)));
  CHECK(constant.se < 1e-14);
  CHECK(constant.low == doctest::Approx(2.5));
}

TEST_CASE("eval/bootstrap: intervals of correlated noise cover the truth; single items do not") {
  constexpr std::size_t n = 2000;
  constexpr double phi = 0.7;
  int covered = 0, covered_by_default = 0, covered_by_single = 0;
  constexpr int trials = 200;
  double relative_error = 0;
  // Standard error of an AR(1) mean: 1 / (1 - phi) / sqrt(n), up to terms of order 1 / n.
  const double truth = 1 / (1 - phi) / std::sqrt(static_cast<double>(n));
  for (int trial = 0; trial < trials; ++trial) {
    const auto items = unit_items(ar1(n, phi, 100u + static_cast<std::uint32_t>(trial)));
    const auto covers = [&](index_t length) {
      const BootstrapEstimate e = bootstrap_mean(
          items,
          {.block_length = length, .replicates = 400, .seed = static_cast<std::uint64_t>(trial)});
      if (length == 50) relative_error += e.se / truth / trials;
      return e.low <= 0 && 0 <= e.high;
    };
    covered += covers(50);
    covered_by_default += covers(0);
    if (trial < 40) covered_by_single += covers(1);
  }
  MESSAGE("coverage of 95 % intervals in ", trials, " trials: blocks of 50 ", covered,
          ", default blocks ", covered_by_default, ", single items ", covered_by_single,
          "; mean error over truth ", relative_error);
  // 95 % of 200 is 190 with deviation 3.1; blocks of 50 lose about 5 % of the variance.
  CHECK(covered >= 178);
  CHECK(covered <= 199);
  CHECK(covered_by_default >= 175);
  // Their variance is (1 + phi) / (1 - phi) = 5.7 times too small: 59 % of 40 are covered.
  CHECK(covered_by_single < 31);
  CHECK(std::fabs(relative_error - 1) < 0.06);
}

TEST_CASE("eval/bootstrap: the same draws for a seed, others for another") {
  const auto items = unit_items(ar1(300, 0.5, 1));
  const BootstrapEstimate a = bootstrap_mean(items, {.seed = 5});
  const BootstrapEstimate b = bootstrap_mean(items, {.seed = 5});
  const BootstrapEstimate c = bootstrap_mean(items, {.seed = 6});
  CHECK(a.se == b.se);
  CHECK(a.low == b.low);
  CHECK(a.se != c.se);
  CHECK(a.block_length == 14);  // ceil(300^(1/3)) = 7, twice
  CHECK(default_block_length(1000) == 20);
  CHECK(default_block_length(1001) == 22);
  CHECK(default_block_length(2) == 1);
  const BootstrapEstimate wide = bootstrap_mean(items, {.confidence = 0.99});
  const BootstrapEstimate narrow = bootstrap_mean(items, {.confidence = 0.5});
  CHECK(wide.low < narrow.low);
  CHECK(wide.high > narrow.high);
}

TEST_CASE("eval/bootstrap: units are documents, windows or runs of tokens") {
  const auto unit = [](index_t windows, index_t per_text) {
    return detail::resolve_unit(plan_of(windows, 4, per_text), ResampleUnit::automatic);
  };
  CHECK(unit(60, 3) == ResampleUnit::document);
  CHECK(unit(60, 4) == ResampleUnit::window);
  CHECK(unit(19, 19) == ResampleUnit::token);
  const WindowPlan plan = plan_of(60, 10, 3);
  const ScoredLosses losses = losses_of(plan, ar1(600, 0.6, 2));
  const BootstrapEstimate by_document = bootstrap_token_nll(plan, losses);
  CHECK(by_document.items == 20);
  CHECK(by_document.block_length == 1);
  const BootstrapEstimate by_window = bootstrap_token_nll(plan, losses, ResampleUnit::window);
  CHECK(by_window.items == 60);
  CHECK(by_window.block_length == 1);
  const BootstrapEstimate by_token = bootstrap_token_nll(plan, losses, ResampleUnit::token);
  CHECK(by_token.items == 600);
  CHECK(by_token.block_length == default_block_length(600));
  CHECK(by_token.mean == doctest::Approx(by_document.mean).epsilon(1e-12));
  // Blocks of 30 tokens on document boundaries are the documents.
  CHECK(by_document.se ==
        doctest::Approx(
            bootstrap_token_nll(plan, losses, ResampleUnit::token, {.block_length = 30}).se)
            .epsilon(0.35));
  // Overlapping windows are drawn together: 256 tokens every 64 are four.
  WindowPlan overlapping = plan;
  overlapping.protocol = protocols::longlora(256, 64);
  CHECK(bootstrap_token_nll(overlapping, losses, ResampleUnit::window).block_length == 4);
}

TEST_CASE("eval/bootstrap: a paired difference by hand and against brute force") {
  const WindowPlan plan = plan_of(40, 5, 2);
  const std::vector<double> base = ar1(200, 0.9, 7);
  std::vector<double> shifted = base;
  const Random noise{.seed = 3, .stream = 4};
  for (std::size_t i = 0; i < shifted.size(); ++i) {
    if (i % 4 != 0) shifted[i] += std::fma(0.05, noise.normal(i), -0.1);
  }
  const ScoredLosses a = losses_of(plan, base), b = losses_of(plan, shifted);
  const PairedComparison c = compare(plan, a, b, ResampleUnit::automatic, {.replicates = 8000});
  CHECK(c.unit == ResampleUnit::document);
  CHECK(c.tokens == 200);
  double sum = 0;
  std::vector<double> document(20);
  int better = 0, worse = 0;
  for (std::size_t i = 0; i < 200; ++i) {
    const double d = shifted[i] - base[i];
    sum += d;
    document[i / 10] += d / 10;
    better += d < 0;
    worse += d > 0;
  }
  CHECK(c.difference.mean == doctest::Approx(sum / 200).epsilon(1e-12));
  CHECK(c.difference.se == doctest::Approx(exact_error(document, 1)).epsilon(0.04));
  CHECK(c.ppl_ratio == doctest::Approx(std::exp(sum / 200)).epsilon(1e-12));
  CHECK(c.improved == better / 200.0);
  CHECK(c.worse == worse / 200.0);
  CHECK(c.improved + c.worse == 0.75);
  // What both find hard cancels: the difference is known far better than either mean.
  CHECK(c.difference.se < 0.1 * bootstrap_token_nll(plan, a).se);
  CHECK(c.difference.high < 0);

  const PairedComparison back = compare(plan, b, a, ResampleUnit::automatic, {.replicates = 8000});
  CHECK(back.difference.mean == -c.difference.mean);
  CHECK(back.difference.se == doctest::Approx(c.difference.se).epsilon(1e-12));
  const PairedComparison same = compare(plan, a, a);
  CHECK(same.difference.mean == 0);
  CHECK(same.difference.se == 0);
  CHECK(same.improved == 0);
  CHECK(same.ppl_ratio == 1);
}

TEST_CASE("eval/bootstrap: bad input is refused, losses that are not finite stay so") {
  const auto items = unit_items({1, 2, 3, 4});
  const auto outcome = [&](std::vector<SeriesItem> x, BootstrapOptions o) {
    return outcome_of([&] { bootstrap_mean(x, o); });
  };
  CHECK(outcome(items, {}) == "accepted");
  CHECK(outcome({}, {}) == "usage");
  CHECK(outcome({{1, 1}}, {}) == "usage");
  CHECK(outcome({{1, 1}, {1, 0}}, {}) == "usage");
  CHECK(outcome(items, {.block_length = 5}) == "usage");
  CHECK(outcome(items, {.block_length = -1}) == "usage");
  CHECK(outcome(items, {.replicates = 1}) == "usage");
  CHECK(outcome(items, {.confidence = 1}) == "usage");
  const BootstrapEstimate e =
      bootstrap_mean(unit_items({1, std::numeric_limits<double>::quiet_NaN(), 3}));
  CHECK(std::isnan(e.mean));
  CHECK(std::isnan(e.se));
  CHECK(std::isnan(e.high));
  const WindowPlan two = plan_of(2, 3, 1), three = plan_of(3, 2, 1);
  const ScoredLosses a = losses_of(two, {1, 2, 3, 4, 5, 6});
  const ScoredLosses b = losses_of(three, {1, 2, 3, 4, 5, 6});
  CHECK(outcome_of([&] { compare(two, a, b); }) == "usage");
  CHECK(outcome_of([&] { compare(three, a, a); }) == "usage");
}
