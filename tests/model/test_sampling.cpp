// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/model/sampling.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Logits of deviation `scale`; every fourth value comes twice, so that there are ties.
std::vector<double> some_logits(std::size_t count, std::uint32_t stream, double scale) {
  const Random random{.seed = 11, .stream = stream};
  std::vector<double> out(count);
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = i % 4 == 3 ? out[i / 2] : scale * random.normal(i);
  }
  return out;
}

/// The distribution by the definition: whole vectors, -inf for what goes, one softmax a step.
std::map<TokenId, double> reference(std::vector<double> logits, const std::vector<TokenId>& seen,
                                    const SamplingConfig& c) {
  const std::vector<double> raw = logits;
  for (const TokenId id : seen) {
    const double x = raw[static_cast<std::size_t>(id)];
    logits[static_cast<std::size_t>(id)] =
        x < 0 ? x * c.repetition_penalty : x / c.repetition_penalty;
  }
  std::vector<std::size_t> rank(logits.size());
  std::iota(rank.begin(), rank.end(), std::size_t{0});
  std::stable_sort(rank.begin(), rank.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  if (c.temperature == 0) return {{static_cast<TokenId>(rank[0]), 1.0}};
  for (double& x : logits) x /= c.temperature;
  const auto softmax = [&] {
    const double top = logits[rank[0]];
    double sum = 0;
    std::vector<double> p(logits.size());
    for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(logits[i] - top);
    for (double& x : p) x /= sum;
    return p;
  };
  if (c.top_k > 0) {
    for (auto k = static_cast<std::size_t>(c.top_k); k < rank.size(); ++k) {
      logits[rank[k]] = -infinity;
    }
  }
  if (c.top_p < 1) {
    const std::vector<double> p = softmax();
    double above = 0;
    for (std::size_t r = 0; r < rank.size(); ++r) {
      if (r > 0 && above >= c.top_p) logits[rank[r]] = -infinity;
      above += p[rank[r]];
    }
  }
  const std::vector<double> p = softmax();
  std::map<TokenId, double> out;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] > 0) out[static_cast<TokenId>(i)] = p[i];
  }
  return out;
}

/// Pearson's statistic of `draws` samples against probabilities; every expected count is >= 5.
double chi_square(const std::vector<double>& logits, const SamplingConfig& config, int draws,
                  const std::map<TokenId, double>& p) {
  TokenSampler sampler(config);
  std::map<TokenId, int> counts;
  for (int step = 0; step < draws; ++step) {
    ++counts[sampler.sample(logits, {}, static_cast<std::uint64_t>(step))];
  }
  double statistic = 0;
  for (const auto& [id, share] : p) {
    const double expected = share * draws;
    REQUIRE(expected >= 5);
    const double off = counts[id] - expected;
    statistic += off * off / expected;
    counts.erase(id);
  }
  for (const auto& [id, count] : counts) REQUIRE(count == 0);  // nothing outside the support
  return statistic;
}

}  // namespace

TEST_CASE("model/sampling: probabilities are those of the definition, for all warpers together") {
  std::uint32_t stream = 0;
  for (const std::size_t size : {1u, 2u, 7u, 64u, 65u, 700u}) {
    for (const double temperature : {0.3, 1.0, 2.5}) {
      for (const std::int64_t k : {0, 1, 2, 50, 1000}) {
        for (const double p : {1.0, 0.95, 0.5, 1e-9}) {
          for (const double penalty : {1.0, 1.3, 0.8}) {
            const auto logits = some_logits(size, ++stream, 4);
            const SamplingConfig config{
                .temperature = temperature, .top_k = k, .top_p = p, .repetition_penalty = penalty};
            std::vector<TokenId> seen;  // with repetitions, which count once
            for (std::size_t i = 0; i < size; i += 3) {
              seen.push_back(static_cast<TokenId>(i));
              seen.push_back(static_cast<TokenId>(i / 2 / 3 * 3));
            }
            TokenSampler sampler(config);
            const auto got = sampler.probabilities(logits, seen);
            const auto want = reference(logits, seen, config);
            REQUIRE(got.size() == want.size());
            auto expected = want.begin();
            double sum = 0;
            for (const TokenProbability& t : got) {
              CHECK(t.id == expected->first);  // ascending
              // 700 terms and a quotient in double, against std::exp.
              CHECK(t.probability == doctest::Approx(expected->second).epsilon(1e-13));
              sum += t.probability;
              ++expected;
            }
            CHECK(std::fabs(sum - 1) < 1e-13);
          }
        }
      }
    }
  }
}

TEST_CASE("model/sampling: samples are distributed as the closed forms say") {
  // Critical values of chi-square at 1e-4: a fixed seed passes for ever, a wrong law hardly.
  const std::vector<double> logits = {std::log(1.0), std::log(2.0), std::log(3.0), std::log(4.0)};
  constexpr int draws = 40000;
  CHECK(chi_square(logits, {.temperature = 1, .seed = 1}, draws,
                   {{0, 0.1}, {1, 0.2}, {2, 0.3}, {3, 0.4}}) < 21.1);  // 3 degrees of freedom
  // Temperature 1/2 squares the probabilities.
  CHECK(chi_square(logits, {.temperature = 0.5, .seed = 2}, draws,
                   {{0, 1 / 30.0}, {1, 4 / 30.0}, {2, 9 / 30.0}, {3, 16 / 30.0}}) < 21.1);
  CHECK(chi_square(logits, {.temperature = 1, .top_k = 2, .seed = 3}, draws,
                   {{2, 3 / 7.0}, {3, 4 / 7.0}}) < 15.1);  // 1 degree
  // 0.4 < 0.6 keeps the second, 0.7 >= 0.6 ends before the third.
  CHECK(chi_square(logits, {.temperature = 1, .top_p = 0.6, .seed = 4}, draws,
                   {{2, 3 / 7.0}, {3, 4 / 7.0}}) < 15.1);
  CHECK(chi_square(logits, {.temperature = 1, .top_p = 0.75, .seed = 5}, draws,
                   {{1, 2 / 9.0}, {2, 3 / 9.0}, {3, 4 / 9.0}}) < 18.5);  // 2 degrees
  // The statistic can fail: a law that is off by a tenth is seen.
  CHECK(chi_square(logits, {.temperature = 1.1, .seed = 1}, draws,
                   {{0, 0.1}, {1, 0.2}, {2, 0.3}, {3, 0.4}}) > 21.1);
}

TEST_CASE("model/sampling: a token is a function of seed and step") {
  const auto logits = some_logits(300, 1, 1);
  const auto draw = [&](std::uint64_t seed, std::uint64_t step) {
    TokenSampler sampler({.temperature = 1, .seed = seed});
    return sampler.sample(logits, {}, step);
  };
  TokenSampler used({.temperature = 1, .seed = 9});
  std::vector<TokenId> forward, backward;
  for (std::uint64_t step = 0; step < 50; ++step) forward.push_back(used.sample(logits, {}, step));
  for (std::uint64_t step = 50; step-- > 0;) backward.push_back(draw(9, step));
  std::reverse(backward.begin(), backward.end());
  CHECK(forward == backward);
  std::vector<TokenId> other;
  for (std::uint64_t step = 0; step < 50; ++step) other.push_back(draw(10, step));
  CHECK(forward != other);
}

TEST_CASE(
    "model/sampling: temperature 0 is the argmax, the lowest id of equals, whatever k and p") {
  const std::vector<double> logits = {1, 5, -2, 5, 0};
  for (const std::int64_t k : {0, 1, 100}) {
    for (const double p : {1.0, 1e-6}) {
      TokenSampler sampler({.temperature = 0, .top_k = k, .top_p = p});
      CHECK(sampler.sample(logits, {}, 0) == 1);
    }
  }
  TokenSampler penalized({.temperature = 0, .repetition_penalty = 2});
  const std::vector<TokenId> seen = {1, 1};
  CHECK(penalized.sample(logits, seen, 0) == 3);  // 5 / 2 < 5
  const std::vector<TokenId> both = {3, 1};
  CHECK(penalized.sample(logits, both, 0) == 1);  // 2.5 = 2.5 > 1: once, not twice
}

TEST_CASE("model/sampling: the penalty divides positive logits and multiplies negative ones") {
  // Two tokens: p0 / p1 = e^(x0 - x1).
  const auto odds = [](double x0, double x1, double penalty) {
    TokenSampler sampler({.temperature = 1, .repetition_penalty = penalty});
    const std::vector<double> logits = {x0, x1};
    const std::vector<TokenId> seen = {0};
    const auto p = sampler.probabilities(logits, seen);
    return p[0].probability / p[1].probability;
  };
  CHECK(odds(2, 0, 4) == doctest::Approx(std::exp(0.5)));
  CHECK(odds(-2, 0, 4) == doctest::Approx(std::exp(-8.0)));
  CHECK(odds(0, 0, 4) == doctest::Approx(1.0));
}

TEST_CASE("model/sampling: edges: ties at the k-th, tiny p, -inf, tiny temperatures, big sets") {
  const auto ids = [](const std::vector<double>& logits, const SamplingConfig& config) {
    TokenSampler sampler(config);
    std::vector<TokenId> out;
    for (const TokenProbability& t : sampler.probabilities(logits, {})) out.push_back(t.id);
    return out;
  };
  const std::vector<double> equal(5, 0.5);
  CHECK(ids(equal, {.temperature = 1, .top_k = 2}) == std::vector<TokenId>{0, 1});
  CHECK(ids(equal, {.temperature = 1, .top_p = 0.4}) == std::vector<TokenId>{0, 1});
  CHECK(ids(equal, {.temperature = 1, .top_p = 1e-300}) == std::vector<TokenId>{0});
  CHECK(ids(equal, {.temperature = 1, .top_k = 6}).size() == 5);
  CHECK(ids({3, -infinity, 2}, {.temperature = 1}) == std::vector<TokenId>{0, 2});
  CHECK(ids({3, -infinity, 2}, {.temperature = 1, .top_k = 3}) == std::vector<TokenId>{0, 2});
  CHECK(ids({1e300, -1e300, 9e299}, {.temperature = 1e-300}) == std::vector<TokenId>{0});
  CHECK(ids({1, 2, 3}, {.temperature = 5e-324}) == std::vector<TokenId>{2});
  CHECK(ids({0, 1e-9, 0}, {.temperature = 1e300}).size() == 3);
  // A nucleus beyond the first batch that is sorted: 3000 equal tokens, a third of them.
  CHECK(ids(std::vector<double>(3000, 1), {.temperature = 1, .top_p = 1000.5 / 3000}).size() ==
        1001);
}

TEST_CASE("model/sampling: logits that are no numbers are refused") {
  const auto kind = [](const std::vector<double>& logits, double temperature) {
    return error_of([&] { TokenSampler({.temperature = temperature}).probabilities(logits, {}); })
        .kind;
  };
  for (const double temperature : {0.0, 1.0}) {
    CHECK(kind({1, std::nan(""), 2}, temperature) == ErrorClass::numeric);
    CHECK(kind({1, infinity}, temperature) == ErrorClass::numeric);
    CHECK(kind({-infinity, -infinity}, temperature) == ErrorClass::numeric);
  }
  const ErrorInfo info = error_of([] {
    TokenSampler({}).probabilities(std::vector<double>{1, std::nan("")}, {});
  });
  CHECK(info.field == "logit of id 1");
}

TEST_CASE("model/sampling: settings out of their range are named with the range") {
  const double nan = std::nan("");
  const auto field = [](const SamplingConfig& config) {
    const ErrorInfo info = error_of([&] { TokenSampler{config}; });
    CHECK(info.kind == ErrorClass::usage);
    CHECK(!info.expected.empty());
    return info.field;
  };
  for (const double t : {-1.0, -1e-300, infinity, nan}) {
    CHECK(field({.temperature = t}) == "temperature");
  }
  CHECK(field({.top_k = -1}) == "top_k");
  for (const double p : {0.0, -0.5, 1.0000001, nan}) CHECK(field({.top_p = p}) == "top_p");
  for (const double r : {0.0, -2.0, infinity, nan}) {
    CHECK(field({.repetition_penalty = r}) == "repetition_penalty");
  }
  TokenSampler({.temperature = 0, .top_k = 0, .top_p = 1, .repetition_penalty = 1e-3});
  const std::vector<TokenId> seen = {2};
  TokenSampler penalized({.repetition_penalty = 2});
  const std::vector<double> logits = {1, 2};
  CHECK_THROWS_AS(penalized.probabilities(logits, seen), Error);
}
