// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/eval/perplexity.hpp"
#include "ropewalk/model/decoder.hpp"
#include "ropewalk/oracle/llama.hpp"
#include "ropewalk/rope/rope_spec.hpp"

#include "model/small_llama.hpp"

using namespace ropewalk;

// Partial rotation, scales of logits and switching methods, through a whole model.

namespace {

constexpr ModelRope trained = {.rope_theta = 10000, .max_position_embeddings = 64};

FrequencyPlan frequencies_of(const std::string& spec, std::int64_t T) {
  return make_frequency_plan(parse_rope(spec, trained),
                             {.rotary_dim = small_config.head_dim, .seq_len = T});
}

/// Losses of the library in one pass. cu_seqlens: packed documents, or none.
std::vector<double> scored(const Llama<float>& model, const FrequencyPlan& plan,
                           const std::vector<TokenId>& ids,
                           std::span<const std::int32_t> cu_seqlens = {}) {
  const std::size_t n = ids.size() - 1;
  const auto kernels = make_kernel_table<simd::native>();
  Workspace workspace;
  const Runner<float> run{.model = &model, .kernels = &kernels, .workspace = &workspace};
  std::vector<HeadResult> results(n);
  score_sequence(run, plan, std::span(ids).first(n), std::span(ids).subspan(1), cu_seqlens,
                 results);
  std::vector<double> nll;
  for (const HeadResult& r : results) nll.push_back(r.nll);
  return nll;
}

std::vector<double> oracle_scored(const Llama<float>& model, const FrequencyPlan& frequencies,
                                  const std::vector<TokenId>& ids) {
  const std::size_t n = ids.size() - 1;
  const FrequencyPlan* plan = &frequencies;
  std::vector<std::int64_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  const auto exact = oracle::make_llama(model.config, model.weights);
  const auto hidden =
      oracle::hidden_states(exact, {&plan, 1}, std::span(ids).first(n), positions, Causal{});
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

const char* const specs[] = {
    "default:partial_rotary_factor=0.5",
    "default:rotary_dim=8,rotary_offset=4",
    "yarn:factor=4,rotary_dim=4",
    "proportional:partial_rotary_factor=0.5",
    "default:logn_length=32",
    "default:logn_length=32,logn_clip=false",
    "ntk:factor=4,logit_scale=1.5",
    "yarn:factor=4,partial_rotary_factor=0.7,rotary_offset=2,logit_scale=0.75,logn_length=64",
    "longrope:short_factor=[1,1,1,1,1.25,1.5],long_factor=[1,1.5,2,3,4,8],factor=4",
};

}  // namespace

TEST_CASE("model/llama: partial rotation and logit scales agree with the double oracle") {
  const auto ids = random_tokens(131, small_config.vocab_size, 21);
  for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
    LlamaConfig c = small_config;
    c.pair_layout = layout;
    const Llama<float> model = random_llama(c);
    const std::vector<double> plain = scored(model, frequencies_of("default", 130), ids);
    for (const std::string spec : specs) {
      CAPTURE(spec);
      const FrequencyPlan plan = frequencies_of(spec, 130);
      const std::vector<double> nll = scored(model, plan, ids);
      // The bound of whole models in float (test_llama.cpp).
      CHECK(largest_difference(nll, oracle_scored(model, plan, ids)) < 2e-5);
      CHECK(largest_difference(nll, plain) > 1e-3);  // and none is ignored
    }
  }
}

TEST_CASE("model/llama: log-n counts the keys of a query's own document") {
  const Llama<float> model = random_llama(small_config, 3);
  const auto ids = random_tokens(161, small_config.vocab_size, 22);
  const FrequencyPlan plan = frequencies_of("default:logn_length=32", 160);
  const std::vector<std::int32_t> cuts = {0, 70, 71, 160};
  const auto packed = scored(model, plan, ids, cuts);
  for (std::size_t d = 0; d + 1 < cuts.size(); ++d) {
    const std::vector<TokenId> alone(ids.begin() + cuts[d], ids.begin() + cuts[d + 1] + 1);
    const auto own = scored(model, plan, alone);
    CHECK(std::equal(own.begin(), own.end(), packed.begin() + cuts[d]));
  }
  // Within the trained length it is plain, bit for bit.
  const std::vector<TokenId> early(ids.begin(), ids.begin() + 33);
  CHECK(scored(model, plan, early) == scored(model, frequencies_of("default", 32), early));
}

TEST_CASE("model/kv_cache: partial rotation and logit scales, in chunks as in one pass") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(141, small_config.vocab_size, 12);
  for (const std::string spec : specs) {
    for (const KeyStorage storage : {KeyStorage::rotated, KeyStorage::unrotated}) {
      CAPTURE(spec);
      const FrequencyPlan plan = frequencies_of(spec, 140);
      const auto whole = scored(model, plan, ids);
      KvCache<float> cache = make_kv_cache(small_config, 140, storage);
      Workspace workspace;
      for (const index_t count : {1, 62, 1, 1, 75}) {
        const auto past = static_cast<std::size_t>(cache.length);
        const auto positions = batch_positions(Identity{cache.length}, count);
        const RotaryRows rows = make_rotary_rows(plan, positions);
        const RotaryRows key_rows =
            make_rotary_rows(plan, batch_positions(Identity{}, cache.length + count));
        const RotationPair rotation{&rows, storage == KeyStorage::rotated ? &rows : &key_rows};
        const std::vector<float> query_scale = make_query_scale(plan, positions);
        const BlockPlan blocks = make_block_plan(Causal{}, count, {}, cache.length);
        const LayerPlan layer{.branches = {&rotation, 1},
                              .blocks = &blocks,
                              .logit_scale = plan.logit_scale,
                              .query_scale = query_scale,
                              .rope_hash = plan.rope_hash};
        std::vector<HeadResult> results(static_cast<std::size_t>(count));
        forward(model, std::span(&layer, 1),
                {.tokens = std::span(ids).subspan(past, results.size()),
                 .targets = std::span(ids).subspan(past + 1, results.size())},
                &cache, make_kernel_table<simd::native>(), {}, workspace, results);
        for (std::size_t t = 0; t < results.size(); ++t) {
          REQUIRE(results[t].nll == whole[past + t]);
        }
      }
      CHECK(cache.length == 140);
    }
  }
}

TEST_CASE("model/decoder: log-n and partial rotation decode as full passes, in every mode") {
  const Llama<float> model = random_llama(small_config, 2);
  auto ids = random_tokens(30, small_config.vocab_size, 13);
  for (const std::string spec : {specs[7], specs[5]}) {
    const FrequencyPlan plan = frequencies_of(spec, 60);
    std::vector<TokenId> expected;
    for (const DecodeMode mode : {DecodeMode::recompute, DecodeMode::consistent_decode,
                                  DecodeMode::hf_cache, DecodeMode::fixed}) {
      Decoder<float> decoder(model, LengthFrequencies(plan), make_kernel_table<simd::native>(), {},
                             {.capacity = 60, .mode = mode, .chunk = 7});
      std::vector<TokenId> sequence = ids;
      std::vector<double> logits(static_cast<std::size_t>(small_config.vocab_size));
      while (sequence.size() < 60) sequence.push_back(decoder.next(sequence, logits));
      if (expected.empty()) expected = sequence;
      CHECK(sequence == expected);
    }
    // The loss of a full pass sees the same argmax at the last position.
    CHECK(scored(model, plan, expected).size() == 59);
  }
}

TEST_CASE("model/llama: rows and scales that do not fit are refused") {
  const Llama<float> model = random_llama(small_config, 2);
  const auto ids = random_tokens(9, small_config.vocab_size, 12);
  const auto positions = batch_positions(Identity{}, 8);
  const auto run = [&](const RotaryRows& rows, std::span<const float> query_scale) {
    const RotationPair rotation{&rows, &rows};
    const BlockPlan blocks = make_block_plan(Causal{}, 8);
    const LayerPlan layer{
        .branches = {&rotation, 1}, .blocks = &blocks, .query_scale = query_scale};
    Workspace workspace;
    std::vector<HeadResult> results(8);
    forward(model, std::span(&layer, 1),
            {.tokens = std::span(ids).first(8), .targets = std::span(ids).subspan(1)}, nullptr,
            make_kernel_table<simd::native>(), {}, workspace, results);
  };
  const RotaryRows rows = make_rotary_rows(frequencies_of("default", 8), positions);
  const std::vector<float> seven(7, 1.0f);
  CHECK_NOTHROW(run(rows, {}));
  CHECK_THROWS_WITH_AS(run(rows, seven), doctest::Contains("query scale"), Error);
  RotaryRows shifted = rows;
  shifted.first_channel = 2;
  CHECK_THROWS_WITH_AS(run(shifted, {}), doctest::Contains("no wider"), Error);
}
