// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/generate.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/oracle/llama.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/yarn.hpp"

#include "golden/tiny_llama.hpp"
#include "golden/tiny_llama_weights.hpp"
#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

constexpr LlamaConfig small_config{.hidden_size = 40,
                                   .intermediate_size = 52,
                                   .num_hidden_layers = 2,
                                   .num_attention_heads = 4,
                                   .num_key_value_heads = 2,
                                   .head_dim = 12,
                                   .vocab_size = 91,
                                   .max_position_embeddings = 64};

FrequencyPlan plan_of(index_t head_dim) {
  return make_frequency_plan(Yarn{.factor = 4, .original_max_position_embeddings = 64},
                             {.rotary_dim = head_dim});
}

std::vector<std::int64_t> restarting(std::span<const std::int32_t> cu_seqlens) {
  return oracle::restarting_positions(cu_seqlens);
}

/// Losses of a packed batch; one document unless cu_seqlens says otherwise.
template <class Arch = simd::native, class Mask = Causal>
std::vector<double> losses(const Llama<float>& model, const std::vector<TokenId>& ids,
                           std::vector<std::int32_t> cu_seqlens = {}, const Executor& executor = {},
                           const Mask& mask = {}) {
  const std::size_t n = ids.size() - 1;
  if (cu_seqlens.empty()) cu_seqlens = {0, static_cast<std::int32_t>(n)};
  const FrequencyPlan frequencies = plan_of(model.config.head_dim);
  const auto positions = restarting(cu_seqlens);
  const RotaryRows rows = make_rotary_rows(frequencies, positions);
  const RotationPair rotation{&rows, &rows};
  const BlockPlan blocks = make_block_plan(mask, static_cast<index_t>(n), cu_seqlens);
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
  const auto kernels = make_kernel_table<Arch>();
  Workspace workspace;
  std::vector<HeadResult> results(n);
  forward(model, std::span(&layer, 1),
          {.tokens = std::span(ids).first(n), .targets = std::span(ids).subspan(1)}, nullptr,
          kernels, executor, workspace, results);
  std::vector<double> out;
  for (const HeadResult& r : results) out.push_back(r.nll);
  return out;
}

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

TEST_CASE("model/llama: bits do not depend on threads, instruction set, or what follows") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(701, small_config.vocab_size, 5);
  const std::vector<double> whole = losses(model, ids);
  for_each_arch([&]<class Arch>() {
    for (const index_t threads : {1, 2, 3, 7}) {
      ThreadPool pool(threads);
      CHECK(losses<Arch>(model, ids, {}, pool.executor()) == whole);
    }
  });
  for (const std::size_t length : {1u, 2u, 95u, 96u, 97u, 511u, 512u, 513u, 699u}) {
    const std::vector<TokenId> prefix(ids.begin(), ids.begin() + static_cast<index_t>(length) + 1);
    const auto alone = losses(model, prefix);
    CHECK(std::equal(alone.begin(), alone.end(), whole.begin()));
  }
}

TEST_CASE("model/llama: packed documents have the bits of the documents alone") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(801, small_config.vocab_size, 6);
  const std::vector<std::int32_t> cuts = {0, 1, 60, 61, 640, 800};
  const auto packed = losses(model, ids, cuts);
  for (std::size_t d = 0; d + 1 < cuts.size(); ++d) {
    // The last token of a document predicts the first of the next one, packed or alone.
    const std::vector<TokenId> alone(ids.begin() + cuts[d], ids.begin() + cuts[d + 1] + 1);
    const auto own = losses(model, alone);
    CHECK(std::equal(own.begin(), own.end(), packed.begin() + cuts[d]));
  }
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

TEST_CASE("model/llama: only scored rows are written, predictions need no target") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(30, small_config.vocab_size, 2);
  const auto all = losses(model, ids);
  std::vector<TokenId> targets(ids.begin() + 1, ids.end());
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (t % 3 != 0) targets[t] = not_scored;
  }
  targets.back() = predict_only;
  const std::size_t n = targets.size();
  std::vector<std::int64_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  const RotaryRows rows = make_rotary_rows(plan_of(small_config.head_dim), positions);
  const RotationPair rotation{&rows, &rows};
  const BlockPlan blocks = make_block_plan(Causal{}, static_cast<index_t>(n));
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
  Workspace workspace;
  std::vector<HeadResult> results(n, HeadResult{.nll = -1, .argmax = -1});
  forward(model, std::span(&layer, 1), {.tokens = std::span(ids).first(n), .targets = targets},
          nullptr, make_kernel_table<simd::native>(), {}, workspace, results);
  for (std::size_t t = 0; t + 1 < n; ++t) CHECK(results[t].nll == (t % 3 == 0 ? all[t] : -1));
  CHECK(results.back().argmax >= 0);
  CHECK(std::isnan(results.back().nll));
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

TEST_CASE(
    "model/kv_cache: chunks through a cache have the bits of one pass; other frequencies are "
    "refused") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(601, small_config.vocab_size, 12);
  const auto whole = losses(model, ids);
  const FrequencyPlan frequencies = plan_of(small_config.head_dim);
  KvCache cache = make_kv_cache(small_config, 600);
  Workspace workspace;
  const auto feed = [&](const FrequencyPlan& plan, index_t count) {
    const auto past = static_cast<std::size_t>(cache.length);
    std::vector<std::int64_t> positions(static_cast<std::size_t>(count));
    std::iota(positions.begin(), positions.end(), cache.length);
    const RotaryRows rows = make_rotary_rows(plan, positions);
    const RotationPair rotation{&rows, &rows};
    const BlockPlan blocks = make_block_plan(Causal{}, count, {}, cache.length);
    const LayerPlan layer{
        .branches = {&rotation, 1}, .blocks = &blocks, .rope_hash = plan.rope_hash};
    std::vector<HeadResult> results(static_cast<std::size_t>(count));
    forward(model, std::span(&layer, 1),
            {.tokens = std::span(ids).subspan(past, results.size()),
             .targets = std::span(ids).subspan(past + 1, results.size())},
            &cache, make_kernel_table<simd::native>(), {}, workspace, results);
    for (std::size_t t = 0; t < results.size(); ++t) REQUIRE(results[t].nll == whole[past + t]);
  };
  for (const index_t chunk : {1, 90, 1, 430, 3}) feed(frequencies, chunk);
  const FrequencyPlan other = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 12});
  CHECK_THROWS_WITH_AS(feed(other, 5), doctest::Contains("frequencies"), Error);
  CHECK_THROWS_AS(feed(frequencies, 200), Error);  // no room
  feed(frequencies, 75);                           // a refusal leaves the cache as it was
  CHECK(cache.length == 600);
}

TEST_CASE("model/llama: ids beyond the vocabulary and zero head rows are refused") {
  const Llama<float> model = random_llama(small_config);
  CHECK_THROWS_WITH_AS(losses(model, {1, 91, 3}), doctest::Contains("91"), Error);
  CHECK_THROWS_WITH_AS(losses(model, {1, 2, 95}), doctest::Contains("target"), Error);
  LlamaConfig c = small_config;
  c.norm_head = true;
  LlamaWeights<float> zero = make_llama_weights<float>(c);
  try {
    make_llama(c, std::move(zero));
    CHECK(false);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorClass::numeric);
    CHECK(std::string(e.what()).find("row 0") != std::string::npos);
  }
  c.num_key_value_heads = 3;
  CHECK_THROWS_WITH_AS(make_llama(c, LlamaWeights<float>{}),
                       doctest::Contains("num_key_value_heads"), Error);
}
