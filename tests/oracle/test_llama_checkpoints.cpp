// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/oracle/llama.hpp"

#include "oracle/plain_frequencies.hpp"
#include "support/load_checkpoint.hpp"
#include "support/shared_data.hpp"

namespace ropewalk {
namespace {

using Ids = std::vector<TokenId>;
using oracle::DoubleLlama;

/// Eigen without optimisation is a hundred times slower: such builds see the start of each window.
#ifdef __OPTIMIZE__
constexpr bool optimized = true;
#else
constexpr bool optimized = false;
#endif

template <class T>
std::vector<T> read_array(const std::string& path) {
  static_assert(std::endian::native == std::endian::little);
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  REQUIRE(bytes.size() % sizeof(T) == 0);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

DoubleLlama load(const std::string& path) {
  const Checkpoint checkpoint = load_test_checkpoint(path);
  return oracle::make_llama(checkpoint.config, checkpoint.weights);
}

std::vector<double> nll(const DoubleLlama& model, const FrequencyPlan& plan, const Ids& ids) {
  std::vector<std::int64_t> positions(ids.size() - 1);
  std::iota(positions.begin(), positions.end(), std::int64_t{0});
  const FrequencyPlan* p = &plan;
  const auto hidden = oracle::hidden_states(model, {&p, 1}, std::span(ids).first(positions.size()),
                                            positions, Causal{});
  return oracle::score(model, hidden, std::span(ids).subspan(1)).nll;
}

double mean(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

TEST_CASE("oracle/llama_checkpoints: babyllama's stored losses, all static methods") {
  const auto folder = shared_data("babyllama-105");
  if (!folder) {
    MESSAGE("skipped: no shared data");
    return;
  }
  const DoubleLlama model = load(*folder + "/model5000.bin");
  const auto windows = read_array<std::uint16_t>(*folder + "/windows_6x1025.u16");
  const auto stored = read_array<double>(*folder + "/expected_nll.f64");
  REQUIRE(windows.size() == 6 * 1025);
  REQUIRE(stored.size() == 9 * 6 * 1024);

  constexpr index_t d = 16;
  constexpr double theta = 10000, trained_length = 256;
  namespace plain = oracle_test;
  const std::vector<FrequencyPlan> plans{// the order of expected_tables.json, order_of_arrays
                                         plain::plain(d, theta),
                                         plain::linear(d, theta, 2),
                                         plain::linear(d, theta, 4),
                                         plain::ntk(d, theta, 2),
                                         plain::ntk(d, theta, 4),
                                         plain::plain(d, 50000),
                                         plain::plain(d, 500000),
                                         plain::yarn(d, theta, 4, trained_length),
                                         plain::llama3(d, theta, 4, trained_length)};
  double worst = 0;
  const auto compare = [&](std::size_t method, std::size_t window, std::size_t length) {
    const auto first = windows.begin() + static_cast<std::ptrdiff_t>(window * 1025);
    const Ids ids(first, first + static_cast<std::ptrdiff_t>(length + 1));
    const auto losses = nll(model, plans[method], ids);
    for (std::size_t t = 0; t < length; ++t) {
      const double expected = stored[(method * 6 + window) * 1024 + t];
      worst = std::max(worst, std::abs(losses[t] - expected));
    }
  };
  for (std::size_t method = 0; method < plans.size(); ++method) {
    compare(method, method % 6, optimized ? 320 : 12);  // 320: past the trained length
  }
  if (optimized) {
    compare(0, 0, 1024);
    compare(7, 3, 1024);
  }
  MESSAGE("largest difference of a loss: " << worst);
  // Both forward passes are in double; the losses reach 15 nats and pass five layers.
  CHECK(worst < 1e-9);
}

TEST_CASE("oracle/llama_checkpoints: stories260K decodes greedily to the stored ids") {
  const auto folder = shared_data("stories260K");
  if (!folder) {
    MESSAGE("skipped: no shared data");
    return;
  }
  std::ifstream file(*folder + "/expected_greedy_200_ids.txt");
  const Ids expected{std::istream_iterator<TokenId>(file), {}};
  REQUIRE(expected.size() == 201);
  const DoubleLlama model = load(*folder + "/stories260K.bin");
  const FrequencyPlan plan = oracle_test::plain(8, 10000);
  const FrequencyPlan* p = &plan;
  const Ids bos{1};
  const Ids generated = oracle::generate_greedy(model, {&p, 1}, bos, 40);
  CHECK(generated == Ids(expected.begin(), expected.begin() + 41));

  // All 200 at once: each stored id is the argmax after those before it.
  std::vector<std::int64_t> positions(200);
  std::iota(positions.begin(), positions.end(), std::int64_t{0});
  const auto hidden =
      oracle::hidden_states(model, {&p, 1}, std::span(expected).first(200), positions, Causal{});
  const auto argmax = oracle::score(model, hidden, Ids(200, -1)).argmax;
  CHECK(argmax == Ids(expected.begin() + 1, expected.end()));
}

TEST_CASE("oracle/llama_checkpoints: TinyStories-656K is half-split, visibly") {
  const auto folder = shared_data("tinystories-656k-hf");
  if (!folder) {
    MESSAGE("skipped: no shared data");
    return;
  }
  DoubleLlama model = load(*folder);
  REQUIRE(model.config.pair_layout == PairLayout::half_split);
  const FrequencyPlan plan = oracle_test::plain(model.config.head_dim, 10000);
  const FrequencyPlan* p = &plan;
  const Ids bos{1};
  const Ids story = oracle::generate_greedy(model, {&p, 1}, bos, 40);
  // The model's own text is likely to it (1.08 nats here; log 2048 = 7.6 would be a guess), but not
  // with the pairs taken wrongly.
  const double right = mean(nll(model, plan, story));
  model.config.pair_layout = PairLayout::interleaved;
  const double wrong = mean(nll(model, plan, story));
  MESSAGE("nats per token: half_split " << right << ", interleaved " << wrong);
  CHECK(right < 1.2);
  CHECK(wrong > right + 0.5);
}

}  // namespace
}  // namespace ropewalk
