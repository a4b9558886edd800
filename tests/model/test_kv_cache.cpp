// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/rotate.hpp"

#include "model/small_llama.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

namespace {

std::vector<std::int64_t> count_from(std::int64_t first, index_t count) {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(count));
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

/// Losses of the next `count` ids, through the cache, with the frequencies of `plan`.
template <class Arch = simd::native>
std::vector<double> feed(const Llama<float>& model, KvCache<float>& cache,
                         const FrequencyPlan& plan, const std::vector<TokenId>& ids, index_t count,
                         const Executor& executor = {}) {
  const auto past = static_cast<std::size_t>(cache.length);
  const bool unrotated = cache.storage == KeyStorage::unrotated;
  const auto positions = count_from(cache.length, count);
  const RotaryRows rows = make_rotary_rows(plan, positions);
  const RotaryRows all = make_rotary_rows(plan, count_from(0, cache.length + count));
  const RotationPair rotation{&rows, unrotated ? &all : &rows};
  const BlockPlan blocks = make_block_plan(Causal{}, count, {}, cache.length);
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks, .rope_hash = plan.rope_hash};
  std::vector<HeadResult> results(static_cast<std::size_t>(count));
  Workspace workspace;
  forward(model, std::span(&layer, 1),
          {.tokens = std::span(ids).subspan(past, results.size()),
           .targets = std::span(ids).subspan(past + 1, results.size())},
          &cache, make_kernel_table<Arch>(), executor, workspace, results);
  std::vector<double> out;
  for (const HeadResult& r : results) out.push_back(r.nll);
  return out;
}

FrequencyPlan plain_plan(double theta) {
  return make_frequency_plan(AdjustedBase{.rope_theta = theta}, {.rotary_dim = 12});
}

}  // namespace

TEST_CASE("model/kv_cache: unrotated keys, rotated when used, have the bits of one pass") {
  for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
    LlamaConfig c = small_config;
    c.pair_layout = layout;
    const Llama<float> model = random_llama(c, 2);
    const auto ids = random_tokens(701, c.vocab_size, 12);
    const auto whole = losses(model, ids);
    for_each_arch([&]<class Arch>() {
      ThreadPool pool(2);
      KvCache<float> cache = make_kv_cache(c, 700, KeyStorage::unrotated);
      std::vector<double> got;
      for (const index_t chunk : {1, 62, 1, 1, 500, 2, 133}) {
        const auto part = feed<Arch>(model, cache, plan_of(12), ids, chunk, pool.executor());
        got.insert(got.end(), part.begin(), part.end());
      }
      CHECK(got == whole);
    });
  }
}

TEST_CASE("model/kv_cache: a pass over unrotated keys is one over keys rotated with its own plan") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(102, small_config.vocab_size, 3);
  KvCache<float> cache = make_kv_cache(small_config, 101, KeyStorage::unrotated);
  feed(model, cache, plain_plan(10000), ids, 100);
  // By hand: the same cache with every key turned by another plan.
  const FrequencyPlan other = plain_plan(777);
  const RotaryRows rows = make_rotary_rows(other, count_from(0, 100));
  KvCache<float> turned = make_kv_cache(small_config, 101, KeyStorage::rotated);
  turned.length = 100;
  turned.rope_hash = other.rope_hash;
  for (index_t l = 0; l < small_config.num_hidden_layers; ++l) {
    const KeyValuePanels<float> from = cache.panels(l), to = turned.panels(l);
    std::copy(from.values, from.values + KeyValuePanels<float>::values_size(from.slots, 2, 12),
              to.values);
    for (index_t h = 0; h < 2; ++h) {
      Tensor<float, 3> keys({100, 1, 12});
      for (index_t t = 0; t < 100; ++t) {
        const float* panel = from.key_panel(h, t / 64 * 64);
        for (index_t d = 0; d < 12; ++d) keys.view()(t, 0, d) = panel[d * 64 + t % 64];
      }
      rotate(keys.view(), rows, small_config.pair_layout);
      for (index_t t = 0; t < 100; ++t) to.store_key(h, t, &keys.view()(t, 0, 0));
    }
  }
  const auto by_hand = feed(model, turned, other, ids, 1);
  const auto before = cache.keys[0][5];
  CHECK(feed(model, cache, other, ids, 1) == by_hand);
  CHECK(cache.keys[0][5] == before);  // what is stored stays as projected
  // Not what the old frequencies would give.
  KvCache<float> again = make_kv_cache(small_config, 101);
  feed(model, again, plain_plan(10000), ids, 100);
  CHECK(feed(model, again, plain_plan(10000), ids, 1) != by_hand);
}

TEST_CASE("model/kv_cache: keys as written are those of one pass whose tokens have several plans") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(181, small_config.vocab_size, 4);
  const std::vector<std::pair<double, index_t>> parts = {
      {10000, 90}, {20000, 1}, {30000, 80}, {500, 9}};
  KvCache<float> cache = make_kv_cache(small_config, 180, KeyStorage::rotated_as_written);
  RotaryRows rows;
  std::vector<double> got;
  for (const auto& [theta, count] : parts) {
    append_rotary_rows(rows, plain_plan(theta), count_from(cache.length, count));
    const auto part = feed(model, cache, plain_plan(theta), ids, count);
    got.insert(got.end(), part.begin(), part.end());
  }
  const RotationPair rotation{&rows, &rows};
  const BlockPlan blocks = make_block_plan(Causal{}, 180);
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
  std::vector<HeadResult> results(180);
  Workspace workspace;
  forward(model, std::span(&layer, 1),
          {.tokens = std::span(ids).first(180), .targets = std::span(ids).subspan(1)}, nullptr,
          make_kernel_table<simd::native>(), {}, workspace, results);
  for (std::size_t t = 0; t < 180; ++t) CHECK(results[t].nll == got[t]);
  // The default cache takes no second plan.
  KvCache<float> strict = make_kv_cache(small_config, 180);
  feed(model, strict, plain_plan(10000), ids, 90);
  CHECK_THROWS_WITH_AS(feed(model, strict, plain_plan(20000), ids, 1),
                       doctest::Contains("frequencies"), Error);
}

TEST_CASE("model/kv_cache: unrotated keys need a row for every key") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(50, small_config.vocab_size, 4);
  KvCache<float> cache = make_kv_cache(small_config, 50, KeyStorage::unrotated);
  feed(model, cache, plain_plan(10000), ids, 20);
  cache.storage = KeyStorage::rotated_as_written;  // so that feed() gives rows of the batch alone
  const auto positions = count_from(20, 5);
  const RotaryRows rows = make_rotary_rows(plain_plan(10000), positions);
  const RotationPair rotation{&rows, &rows};
  const BlockPlan blocks = make_block_plan(Causal{}, 5, {}, 20);
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
  cache.storage = KeyStorage::unrotated;
  std::vector<HeadResult> results(5);
  Workspace workspace;
  const auto run = [&] {
    forward(model, std::span(&layer, 1),
            {.tokens = std::span(ids).subspan(20, 5), .targets = std::span(ids).subspan(21, 5)},
            &cache, make_kernel_table<simd::native>(), {}, workspace, results);
  };
  CHECK_THROWS_WITH_AS(run(), doctest::Contains("unrotated"), Error);
  CHECK(cache.length == 20);
}
