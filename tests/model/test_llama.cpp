// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/generate.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/oracle/llama.hpp"

#include "golden/tiny_llama.hpp"
#include "golden/tiny_llama_weights.hpp"
#include "model/small_llama.hpp"

using namespace ropewalk;

namespace {

template <class Mask = Causal>
std::vector<double> oracle_losses(const Llama<float>& model, const std::vector<TokenId>& ids,
                                  const Mask& mask = {}) {
  const std::size_t n = ids.size() - 1;
  const FrequencyPlan frequencies = plan_of(model.config.head_dim);
  const FrequencyPlan* plan = &frequencies;
  std::vector<std::int64_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  const auto exact = oracle::make_llama(model.config, model.weights);
  const auto hidden =
      oracle::hidden_states(exact, {&plan, 1}, std::span(ids).first(n), positions, mask);
  return oracle::score(exact, hidden, std::span(ids).subspan(1)).nll;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(a[i] - b[i]);
    worst = d <= worst ? worst : d;
  }
  return worst;
}

/// The bound of whole models in float. Weights are of deviation 1 / sqrt(inputs), as trained ones:
/// larger ones amplify the rounding of the first layer from layer to layer.
constexpr double model_bound = 2e-5;

}  // namespace

TEST_CASE("model/llama: losses agree with the double oracle, over shapes") {
  for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
    for (const bool tied : {false, true}) {
      for (const bool norm_head : {false, true}) {
        for (const index_t key_heads : {1, 2, 4}) {
          LlamaConfig c = small_config;
          c.pair_layout = layout;
          c.tie_word_embeddings = tied;
          c.norm_head = norm_head;
          c.num_key_value_heads = key_heads;
          const Llama<float> model = random_llama(c);
          const auto ids = random_tokens(150, c.vocab_size, 3);
          CHECK(largest_difference(losses(model, ids), oracle_losses(model, ids)) < model_bound);
        }
      }
    }
  }
}

TEST_CASE("model/llama: head_dim, widths and vocabularies that fill no vector") {
  for (const index_t head_dim : {2, 6, 16, 34, 66, 128}) {
    LlamaConfig c = small_config;
    c.head_dim = head_dim;
    c.hidden_size = 17;
    c.intermediate_size = 23;
    c.vocab_size = 530;
    if (head_dim == 2) continue;  // a ramp needs more than one pair
    const Llama<float> model = random_llama(c);
    const auto ids = random_tokens(70, c.vocab_size, 4);
    CHECK(largest_difference(losses(model, ids), oracle_losses(model, ids)) < model_bound);
  }
}

TEST_CASE("model/llama: a golden model made by numpy in float64") {
  for (const bool norm_head : {false, true}) {
    const LlamaConfig c = golden::tiny_llama_config(norm_head);
    const Llama<float> model = make_llama(c, golden::tiny_llama_weights(c));
    const auto ids = golden::tiny_llama_tokens();
    CHECK(largest_difference(losses(model, ids), oracle_losses(model, ids)) < model_bound);
  }
}

TEST_CASE("model/llama: sliding windows agree with the oracle") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(200, small_config.vocab_size, 8);
  const SlidingWindow window(31);
  CHECK(largest_difference(losses<simd::native>(model, ids, {}, {}, window),
                           oracle_losses(model, ids, window)) < model_bound);
}

TEST_CASE("model/llama: layers may have plans of their own (no rotation, windows)") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(120, small_config.vocab_size, 9);
  const std::size_t n = ids.size() - 1;
  std::vector<std::int64_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  const FrequencyPlan frequencies = plan_of(small_config.head_dim);
  const RotaryRows rows = make_rotary_rows(frequencies, positions);
  const RotationPair rotated{&rows, &rows}, still{};
  const BlockPlan blocks = make_block_plan(Causal{}, static_cast<index_t>(n));
  const LayerPlan layers[2] = {{.branches = {&still, 1}, .blocks = &blocks},
                               {.branches = {&rotated, 1}, .blocks = &blocks}};
  Workspace workspace;
  std::vector<HeadResult> results(n);
  forward(model, layers, {.tokens = std::span(ids).first(n), .targets = std::span(ids).subspan(1)},
          nullptr, make_kernel_table<simd::native>(), {}, workspace, results);
  const FrequencyPlan* plans[2] = {nullptr, &frequencies};
  const auto exact = oracle::make_llama(model.config, model.weights);
  const auto hidden =
      oracle::hidden_states(exact, plans, std::span(ids).first(n), positions, Causal{});
  const auto want = oracle::score(exact, hidden, std::span(ids).subspan(1)).nll;
  for (std::size_t t = 0; t < n; ++t) CHECK(std::fabs(results[t].nll - want[t]) < model_bound);
}

TEST_CASE("model/generate: greedy decoding with a cache gives the oracle's ids") {
  LlamaConfig c = small_config;
  c.pair_layout = PairLayout::interleaved;
  const Llama<float> model = random_llama(c, 3);
  const FrequencyPlan frequencies = plan_of(c.head_dim);
  const FrequencyPlan* plan = &frequencies;
  const std::vector<TokenId> prompt = {5, 17, 80};
  std::vector<TokenId> ids = prompt;
  ThreadPool pool(2);
  generate_greedy(model, frequencies, make_kernel_table<simd::native>(), pool.executor(), ids, 80,
                  [](TokenId) { return true; });
  CHECK(ids ==
        oracle::generate_greedy(oracle::make_llama(c, model.weights), {&plan, 1}, prompt, 80));
  std::vector<TokenId> stopped = prompt;
  generate_greedy(model, frequencies, make_kernel_table<simd::native>(), {}, stopped, 80,
                  [n = 0](TokenId) mutable { return ++n < 7; });
  CHECK(stopped.size() == prompt.size() + 7);
}
