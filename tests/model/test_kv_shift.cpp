// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/model/kv_shift.hpp"
#include "ropewalk/rope/adjusted_base.hpp"

#include "model/small_llama.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

namespace {

/// A cache of one layer with the keys of `positions` under `plan`, from unrotated ones by slot.
KvCache<float> make_cache(const FrequencyPlan& plan, PairLayout layout,
                          const std::vector<float>& raw, const std::vector<std::int64_t>& positions,
                          KeyStorage storage) {
  LlamaConfig c = small_config;
  c.num_hidden_layers = 1;
  KvCache<float> cache = make_kv_cache(c, 200, storage);
  const KeyValuePanels<float> panels = cache.panels(0);
  const RotaryRows rows = make_rotary_rows(plan, positions);
  for (index_t h = 0; h < 2; ++h) {
    for (index_t t = 0; t < static_cast<index_t>(positions.size()); ++t) {
      std::vector<float> key(raw.begin() + (h * 200 + t) * 12,
                             raw.begin() + (h * 200 + t + 1) * 12);
      panels.store_value(h, t, key.data());
      const index_t row = rows.row[static_cast<std::size_t>(t)] * rows.num_pairs;
      if (storage == KeyStorage::rotated) {
        rotate_head<simd::native>(layout, key.data(), rows.cos.data() + row, rows.sin.data() + row,
                                  rows.num_pairs, Rotation::forward);
      }
      panels.store_key(h, t, key.data());
    }
  }
  cache.length = static_cast<index_t>(positions.size());
  cache.rope_hash = plan.rope_hash;
  return cache;
}

std::vector<std::int64_t> count(index_t n) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

/// Largest distance of two caches' keys, relative to the keys' norms; values must be equal.
double key_distance(KvCache<float>& a, KvCache<float>& b) {
  double worst = 0;
  for (index_t h = 0; h < 2; ++h) {
    for (index_t t = 0; t < a.length; ++t) {
      float x[12], y[12], v[12], w[12];
      load_key(a.panels(0), h, t, x);
      load_key(b.panels(0), h, t, y);
      load_value(a.panels(0), h, t, v);
      load_value(b.panels(0), h, t, w);
      CHECK(std::equal(v, v + 12, w));
      double off = 0, norm = 0;
      for (int d = 0; d < 12; ++d) {
        off += std::pow(static_cast<double>(x[d]) - static_cast<double>(y[d]), 2);
        norm += std::pow(static_cast<double>(y[d]), 2);
      }
      worst = std::fmax(worst, std::sqrt(off / norm));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("model/kv_shift: the keys that stay are those of their new positions") {
  const auto raw = normal_floats(2 * 200 * 12, 4);
  const auto kernels = make_kernel_table<simd::native>();
  for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
    const FrequencyPlan plan = plan_of(12);  // YaRN: its attention factor must not come twice
    for (const Interval removed :
         {Interval{0, 1}, Interval{3, 90}, Interval{64, 128}, Interval{100, 150}, Interval{7, 7}}) {
      std::vector<float> kept = raw;
      for (index_t h = 0; h < 2; ++h) {
        const auto head = kept.begin() + h * 200 * 12;
        std::copy(head + removed.end * 12, head + 150 * 12, head + removed.begin * 12);
      }
      for (const KeyStorage storage : {KeyStorage::rotated, KeyStorage::unrotated}) {
        KvCache<float> shifted = make_cache(plan, layout, raw, count(150), storage);
        remove_tokens(shifted, removed, plan, layout, kernels);
        KvCache<float> expected =
            make_cache(plan, layout, kept, count(150 - removed.size()), storage);
        REQUIRE(shifted.length == expected.length);
        // Two roundings of rotations and one of cos and sin; unrotated keys have none.
        CHECK(key_distance(shifted, expected) <= (storage == KeyStorage::rotated ? 4e-7 : 0));
        CHECK(shifted.rope_hash == plan.rope_hash);
      }
    }
  }
}

TEST_CASE("model/kv_shift: many shifts drift by their roundings only") {
  const auto raw = normal_floats(2 * 200 * 12, 5);
  const auto kernels = make_kernel_table<simd::native>();
  const FrequencyPlan plan =
      make_frequency_plan(AdjustedBase{.rope_theta = 5e5}, {.rotary_dim = 12});
  // Ten keys at position 19000 move down by 190 tokens a hundred times, as in a long chat whose
  // oldest tokens leave.
  std::vector<std::int64_t> positions(10);
  std::iota(positions.begin(), positions.end(), std::int64_t{100 * 190});
  KvCache<float> cache =
      make_cache(plan, PairLayout::half_split, raw, positions, KeyStorage::rotated);
  double worst = 0;
  for (int shift = 1; shift <= 100; ++shift) {
    // 190 tokens come before them and leave.
    KvCache<float> wide = make_kv_cache({.hidden_size = 40,
                                         .intermediate_size = 52,
                                         .num_hidden_layers = 1,
                                         .num_attention_heads = 4,
                                         .num_key_value_heads = 2,
                                         .head_dim = 12,
                                         .vocab_size = 91,
                                         .max_position_embeddings = 64},
                                        200);
    for (index_t h = 0; h < 2; ++h) {
      for (index_t t = 0; t < 10; ++t) {
        float key[12], value[12];
        load_key(cache.panels(0), h, t, key);
        load_value(cache.panels(0), h, t, value);
        wide.panels(0).store_key(h, 190 + t, key);
        wide.panels(0).store_value(h, 190 + t, value);
      }
    }
    wide.length = 200;
    wide.rope_hash = plan.rope_hash;
    remove_tokens(wide, {0, 190}, plan, PairLayout::half_split, kernels);
    REQUIRE(wide.length == 10);
    std::vector<std::int64_t> now(10);
    std::iota(now.begin(), now.end(), std::int64_t{(100 - shift) * 190});
    KvCache<float> exact = make_cache(plan, PairLayout::half_split, raw, now, KeyStorage::rotated);
    const double distance = key_distance(wide, exact);
    worst = std::fmax(worst, distance);
    // The rounding of cos and sin (3.1e-8 each) is the same in every shift and adds up; that of
    // the products (6e-8) does so at worst. 4e-7: both caches' own rotations.
    CHECK(distance <= 1.1e-7 * shift + 4e-7);
    cache = std::move(wide);
  }
  CHECK(worst > 1e-7);  // there is a drift to see: 2.2e-6
}

TEST_CASE("model/kv_shift: in one layer decoding goes on as from a fresh pass; refusals") {
  LlamaConfig c = small_config;
  c.num_hidden_layers = 1;
  const Llama<float> model = random_llama(c, 2);
  const auto ids = random_tokens(120, c.vocab_size, 3);
  const auto kernels = make_kernel_table<simd::native>();
  const FrequencyPlan plan = plan_of(12);
  const auto feed = [&](KvCache<float>& cache, std::span<const TokenId> tokens) {
    const auto n = static_cast<index_t>(tokens.size());
    const auto positions = batch_positions(Identity{cache.length}, n);
    const RotaryRows rows = make_rotary_rows(plan, positions);
    const RotationPair rotation{&rows, &rows};
    const BlockPlan blocks = make_block_plan(Causal{}, n, {}, cache.length);
    const LayerPlan layer{
        .branches = {&rotation, 1}, .blocks = &blocks, .rope_hash = plan.rope_hash};
    const std::vector<TokenId> targets(tokens.size(), 7);
    std::vector<HeadResult> results(tokens.size());
    Workspace workspace;
    forward(model, std::span(&layer, 1), {.tokens = tokens, .targets = targets}, &cache, kernels,
            {}, workspace, results);
    return results.back().nll;
  };
  KvCache<float> cache = make_kv_cache(c, 128);
  feed(cache, std::span(ids).first(100));
  remove_tokens(cache, {10, 70}, plan, c.pair_layout, kernels);
  std::vector<TokenId> kept(ids.begin(), ids.begin() + 10);
  kept.insert(kept.end(), ids.begin() + 70, ids.begin() + 100);
  KvCache<float> fresh = make_kv_cache(c, 128);
  feed(fresh, kept);
  CHECK(cache.length == 40);
  // Keys are off by 4e-7 of their norm; scores and losses are of order 1 to 10.
  CHECK(std::fabs(feed(cache, std::span(ids).subspan(100, 5)) -
                  feed(fresh, std::span(ids).subspan(100, 5))) < 2e-5);

  const FrequencyPlan other = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 12});
  const auto shift = [&](Interval removed, const FrequencyPlan& p) {
    remove_tokens(cache, removed, p, c.pair_layout, kernels);
  };
  CHECK_THROWS_WITH_AS(shift({0, 5}, other), doctest::Contains("frequencies"), Error);
  CHECK_THROWS_AS(shift({40, 46}, plan), Error);
  CHECK_THROWS_AS(shift({-1, 3}, plan), Error);
  KvCache<float> mixed = make_kv_cache(c, 128, KeyStorage::rotated_as_written);
  CHECK_THROWS_AS(remove_tokens(mixed, {0, 0}, plan, c.pair_layout, kernels), Error);
}
