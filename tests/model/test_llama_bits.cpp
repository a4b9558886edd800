// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope/adjusted_base.hpp"

#include "model/small_llama.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

TEST_CASE("model/llama: bits do not depend on threads, instruction set, or what follows") {
  check_bits_of_scoring(random_llama(small_config, 2), {1, 2, 3, 7});
}

TEST_CASE("model/llama: packed documents have the bits of the documents alone") {
  check_bits_of_documents(random_llama(small_config, 2));
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

TEST_CASE(
    "model/kv_cache: chunks through a cache have the bits of one pass; other frequencies are "
    "refused") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(901, small_config.vocab_size, 12);
  const auto whole = losses(model, ids);
  const FrequencyPlan frequencies = plan_of(small_config.head_dim);
  KvCache<float> cache = make_kv_cache(small_config, 600);
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
