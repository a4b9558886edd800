// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/generate.hpp"
#include "ropewalk/oracle/llama.hpp"

#include "support/load_checkpoint.hpp"
#include "support/shared_data.hpp"

using namespace ropewalk;

TEST_CASE("model/generate: TinyStories-656K tells the double oracle's 100 tokens") {
  const auto folder = shared_data("tinystories-656k-hf");
  if (!folder) {
    MESSAGE("skipped: no tinystories-656k-hf");
    return;
  }
  Checkpoint checkpoint = load_test_checkpoint(*folder);
  const AnyFrequency rope = checkpoint.rope;
  const auto exact = oracle::make_llama(checkpoint.config, checkpoint.weights);
  const Llama<float> model = make_llama(checkpoint.config, std::move(checkpoint.weights));
  const FrequencyPlan plan = make_frequency_plan(rope, {.rotary_dim = model.config.head_dim});
  const FrequencyPlan* p = &plan;
  // BOS alone, and a prompt of several ids.
  for (const std::vector<TokenId>& prompt : {std::vector<TokenId>{1}, {1, 402, 33, 260, 1999}}) {
#ifdef __OPTIMIZE__
    constexpr index_t count = 100;
#else
    constexpr index_t count = 10;  // Eigen without optimisation is a hundred times slower
#endif
    const auto expected = oracle::generate_greedy(exact, {&p, 1}, prompt, count);
    ThreadPool pool(2);
    for (const DecodeMode mode : {DecodeMode::consistent_decode, DecodeMode::recompute}) {
      std::vector<TokenId> ids = prompt;
      generate(model, LengthFrequencies(rope, model.config.head_dim),
               make_kernel_table<simd::native>(), pool.executor(), ids,
               {.max_tokens = count, .context = 512, .mode = mode});
      CHECK(ids == expected);
    }
  }
}
