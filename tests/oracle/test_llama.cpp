// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/oracle/llama.hpp"

#include "golden/tiny_llama.hpp"
#include "golden/tiny_llama_weights.hpp"
#include "oracle/plain_frequencies.hpp"

namespace ropewalk {
namespace {

using Ids = std::vector<TokenId>;
using Positions = std::vector<std::int64_t>;
using oracle::DoubleLlama;

constexpr index_t head_dim = 8;
const Ids ids = golden::tiny_llama_tokens();

const std::span<const TokenId> all_inputs(ids.data(), 128);
const std::span<const TokenId> all_targets(ids.data() + 1, 128);

DoubleLlama tiny_llama(bool norm_head = false) {
  const LlamaConfig config = golden::tiny_llama_config(norm_head);
  config.check();
  return oracle::make_llama(config, golden::tiny_llama_weights(config));
}

Positions from(std::int64_t first, std::size_t count) {
  Positions p(count);
  std::iota(p.begin(), p.end(), first);
  return p;
}

/// Losses of tokens [begin, end), each given those since `begin`.
std::vector<double> nll(const DoubleLlama& model, const FrequencyPlan* plan, std::size_t begin,
                        std::size_t end, std::int64_t first_position = 0) {
  const auto hidden =
      oracle::hidden_states(model, {&plan, 1}, all_inputs.subspan(begin, end - begin),
                            from(first_position, end - begin), Causal{});
  return oracle::score(model, hidden, all_targets.subspan(begin, end - begin)).nll;
}

double largest_difference(std::span<const double> a, std::span<const double> b) {
  REQUIRE(a.size() == b.size());
  double d = 0;
  for (std::size_t i = 0; i < a.size(); ++i) d = std::max(d, std::abs(a[i] - b[i]));
  return d;
}

/// The same model for the other pair layout: per head, row r d/2 + i becomes row 2 i + r.
DoubleLlama interleaved(DoubleLlama model) {
  model.config.pair_layout = PairLayout::interleaved;
  const auto permute = [](oracle::Matrix& m) {
    const oracle::Matrix old = m;
    for (index_t row = 0; row < m.rows(); ++row) {
      const index_t c = row % head_dim, head = row - c;
      m.row(head + 2 * (c % (head_dim / 2)) + c / (head_dim / 2)) = old.row(row);
    }
  };
  for (auto& layer : model.layers) {
    permute(layer.q_proj);
    permute(layer.k_proj);
  }
  return model;
}

TEST_CASE("oracle/llama: losses of the golden model") {
  const FrequencyPlan plain = oracle_test::plain(head_dim, 10000);
  const FrequencyPlan yarn = oracle_test::yarn(head_dim, 10000, golden::tiny_llama_yarn_factor,
                                               golden::tiny_llama_trained_length);
  const double worst =
      std::max({largest_difference(nll(tiny_llama(), &plain, 0, 128), golden::tiny_llama_default),
                largest_difference(nll(tiny_llama(), &yarn, 0, 128), golden::tiny_llama_yarn),
                largest_difference(nll(tiny_llama(true), &plain, 0, 128),
                                   golden::tiny_llama_default_norm_head),
                largest_difference(nll(tiny_llama(true), &yarn, 0, 128),
                                   golden::tiny_llama_yarn_norm_head)});
  MESSAGE("largest difference: " << worst);
  CHECK(worst < 1e-12);  // both sides in double: sums in another order, libm of another make
}

TEST_CASE("oracle/llama: the pair layout is a permutation of weights, and matters") {
  const FrequencyPlan plan = oracle_test::plain(head_dim, 10000);
  const DoubleLlama model = tiny_llama();
  DoubleLlama mistaken = model;
  mistaken.config.pair_layout = PairLayout::interleaved;
  const auto expected = nll(model, &plan, 0, 64);
  CHECK(largest_difference(nll(interleaved(model), &plan, 0, 64), expected) < 1e-12);
  CHECK(largest_difference(nll(mistaken, &plan, 0, 64), expected) > 0.1);
}

TEST_CASE(
    "oracle/llama: one pass gives every prefix; documents stand alone; shifts change nothing") {
  const FrequencyPlan plan = oracle_test::plain(head_dim, 10000);
  const DoubleLlama model = tiny_llama();
  const auto whole = nll(model, &plan, 0, 128);
  for (const std::size_t n : {1u, 2u, 37u}) {
    CHECK(largest_difference(nll(model, &plan, 0, n), std::span(whole).first(n)) < 1e-13);
  }
  CHECK(largest_difference(nll(model, &plan, 0, 128, 1 << 24), whole) < 1e-11);

  const std::vector<std::int32_t> offsets{0, 31, 31, 32, 128};
  const Positions positions = oracle::restarting_positions(offsets);
  REQUIRE(positions.size() == 128);
  CHECK(positions[30] == 30);
  CHECK(positions[31] == 0);
  CHECK(positions[32] == 0);
  const FrequencyPlan* p = &plan;
  const auto packed =
      oracle::score_documents(model, {&p, 1}, all_inputs, all_targets, positions, offsets).nll;
  for (std::size_t d = 1; d < offsets.size(); ++d) {
    const auto begin = static_cast<std::size_t>(offsets[d - 1]);
    const auto end = static_cast<std::size_t>(offsets[d]);
    CHECK(largest_difference(nll(model, &plan, begin, end),
                             std::span(packed).subspan(begin, end - begin)) < 1e-13);
  }
  CHECK(largest_difference(packed, whole) > 0.1);  // the documents are not what was scored above
}

TEST_CASE("oracle/llama: a layer without a plan does not rotate; plans may differ by layer") {
  const FrequencyPlan plain = oracle_test::plain(head_dim, 10000);
  const FrequencyPlan still = oracle_test::plan_of(std::vector<double>(head_dim / 2, 0.0));
  const DoubleLlama model = tiny_llama();
  const auto with = [&](const std::vector<const FrequencyPlan*>& plans) {
    const auto hidden =
        oracle::hidden_states(model, plans, all_inputs.first(40), from(0, 40), Causal{});
    return oracle::score(model, hidden, all_targets.first(40)).nll;
  };
  CHECK(with({&plain, &plain}) == with({&plain}));
  CHECK(with({&plain, nullptr}) == with({&plain, &still}));
  CHECK(with({nullptr, &plain}) == with({&still, &plain}));
  CHECK(largest_difference(with({&plain, nullptr}), with({&plain})) > 0.01);
  CHECK(largest_difference(with({&plain, nullptr}), with({nullptr, &plain})) > 0.01);
  CHECK_THROWS_AS(with({&plain, &plain, &plain}), Error);

  // attention_factor f on q and k is a factor f^2 on the logits.
  FrequencyPlan by_cosines = plain, by_logits = plain;
  by_cosines.attention_factor = 1.5;
  by_logits.logit_scale = 2.25;
  CHECK(largest_difference(with({&by_cosines}), with({&by_logits})) < 1e-12);
  CHECK(largest_difference(with({&by_cosines}), with({&plain})) > 0.01);
}

TEST_CASE("oracle/llama: a sliding window is causal until it is full") {
  const FrequencyPlan plan = oracle_test::plain(head_dim, 10000);
  const FrequencyPlan* p = &plan;
  const DoubleLlama model = tiny_llama();
  const auto hidden =
      oracle::hidden_states(model, {&p, 1}, all_inputs.first(20), from(0, 20), SlidingWindow{6});
  const auto windowed = oracle::score(model, hidden, all_targets.first(20)).nll;
  const auto causal = nll(model, &plan, 0, 20);
  CHECK(largest_difference(std::span(windowed).first(6), std::span(causal).first(6)) < 1e-13);
  CHECK(std::abs(windowed[6] - causal[6]) > 1e-6);
}

TEST_CASE("oracle/llama: unscored tokens, argmax, and greedy decoding agree with one pass") {
  const FrequencyPlan plan = oracle_test::plain(head_dim, 10000);
  const FrequencyPlan* p = &plan;
  const DoubleLlama model = tiny_llama();
  const Ids generated = oracle::generate_greedy(model, {&p, 1}, all_inputs.first(3), 12);
  REQUIRE(generated.size() == 15);
  const auto hidden =
      oracle::hidden_states(model, {&p, 1}, std::span(generated).first(14), from(0, 14), Causal{});
  Ids targets(generated.begin() + 1, generated.end());
  targets[5] = -1;
  const auto scores = oracle::score(model, hidden, targets);
  for (std::size_t t = 2; t < 14; ++t) CHECK(scores.argmax[t] == generated[t + 1]);
  CHECK(scores.nll[5] == 0);
  const oracle::Matrix z = oracle::logits(model, hidden);
  for (index_t t = 0; t < 14; ++t) {
    if (t == 5) continue;
    const double lse = std::log(z.row(t).array().exp().sum());
    CHECK(scores.nll[static_cast<std::size_t>(t)] ==
          doctest::Approx(lse - z(t, targets[static_cast<std::size_t>(t)])).epsilon(1e-13));
  }
  oracle::Matrix equals = oracle::Matrix::Zero(1, 4);
  equals(0, 2) = equals(0, 1) = 3;
  CHECK(oracle::argmax(equals, 0) == 1);
}

TEST_CASE("oracle/llama: norm and gate by hand") {
  oracle::Matrix x(1, 2);
  x << 3, 4;
  oracle::Vector weight(2);
  weight << 2, -1;
  const oracle::Matrix y = oracle::rms_norm(x, weight, 0.5);  // sqrt(25 / 2 + 1 / 2)
  CHECK(y(0, 0) == doctest::Approx(6 / std::sqrt(13.0)).epsilon(1e-15));
  CHECK(y(0, 1) == doctest::Approx(-4 / std::sqrt(13.0)).epsilon(1e-15));
  x << 0, std::log(3.0);  // 1 / (1 + 1/3)
  CHECK(oracle::silu(x)(0, 0) == 0);
  CHECK(oracle::silu(x)(0, 1) == doctest::Approx(0.75 * std::log(3.0)).epsilon(1e-15));
  x << -1e4, 1e4;
  CHECK(oracle::silu(x)(0, 0) == 0);
  CHECK(oracle::silu(x)(0, 1) == 1e4);
}

TEST_CASE("oracle/llama: the head is tied, separate or normalised") {
  LlamaConfig config = golden::tiny_llama_config(true);
  const DoubleLlama normal = oracle::make_llama(config, golden::tiny_llama_weights(config));
  for (index_t r = 0; r < config.vocab_size; ++r) {
    CHECK(normal.head.row(r).norm() == doctest::Approx(1).epsilon(1e-15));
  }
  config.tie_word_embeddings = true;
  const auto tied_weights = golden::tiny_llama_weights(config);
  REQUIRE(tied_weights.lm_head.empty());
  const DoubleLlama tied = oracle::make_llama(config, tied_weights);
  CHECK(tied.head.row(3).isApprox(tied.embed_tokens.row(3).normalized(), 1e-15));
  CHECK(tied.embed_tokens.row(3).norm() > 1.5);  // embeddings keep their length
  config.norm_head = false;
  CHECK(oracle::make_llama(config, tied_weights).head == tied.embed_tokens);
}

TEST_CASE("oracle/llama: wrong input is refused") {
  const FrequencyPlan plan = oracle_test::plain(head_dim, 10000);
  const FrequencyPlan* p = &plan;
  const LlamaConfig config = golden::tiny_llama_config(true);
  auto weights = golden::tiny_llama_weights(config);
  for (index_t c = 0; c < config.hidden_size; ++c) weights.lm_head(41, c) = 0;
  try {
    (void)oracle::make_llama(config, weights);
    FAIL_CHECK("a zero row under norm_head was accepted");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorClass::numeric);
    CHECK(std::string(e.what()).find("lm_head.weight: found row 41") != std::string::npos);
  }
  const DoubleLlama model = tiny_llama();
  const auto run = [&](const Ids& tokens, const Positions& positions) {
    return oracle::hidden_states(model, {&p, 1}, tokens, positions, Causal{});
  };
  CHECK_THROWS_AS(run({1, 70}, {0, 1}), Error);
  CHECK_THROWS_AS(run({1, -1}, {0, 1}), Error);
  CHECK_THROWS_AS(run({1, 2}, {0}), Error);
  const oracle::Matrix hidden = run({1, 2}, {0, 1});
  CHECK_THROWS_AS(oracle::score(model, hidden, Ids{1, 70}), Error);
  CHECK_THROWS_AS(oracle::score(model, hidden, Ids{1}), Error);
  CHECK_THROWS_AS(oracle::generate_greedy(model, {&p, 1}, Ids{}, 1), Error);
  const std::vector<std::int32_t> too_short{0, 1};
  CHECK_THROWS_AS(
      oracle::score_documents(model, {&p, 1}, Ids{1, 2}, Ids{2, 3}, Positions{0, 1}, too_short),
      Error);
}

}  // namespace
}  // namespace ropewalk
