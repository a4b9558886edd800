// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/eval/evaluate.hpp"
#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/rope/rope_spec.hpp"

#include "golden/hf_perplexity.hpp"
#include "support/error_of.hpp"
#include "support/load_checkpoint.hpp"
#include "support/random.hpp"
#include "support/shared_data.hpp"

using namespace ropewalk;

namespace {

struct Setup {
  Llama<float> model;
  KernelTable<float> kernels = make_kernel_table<simd::native>();
  ThreadPool pool{2};
  Workspace workspace = {};

  Runner<float> runner() { return {&model, &kernels, pool.executor(), &workspace}; }
};

constexpr LlamaConfig small_config{.hidden_size = 32,
                                   .intermediate_size = 48,
                                   .num_hidden_layers = 2,
                                   .num_attention_heads = 2,
                                   .num_key_value_heads = 1,
                                   .head_dim = 16,
                                   .vocab_size = 64,
                                   .max_position_embeddings = 64};

}  // namespace

TEST_CASE("eval/summary: the prefix curve is the mean of plain passes over each window") {
  Setup s{random_llama(small_config, 2)};
  const auto ids = random_tokens(5 * 65 + 64, 64, 1);  // the rest is no window
  const AnyFrequency policy = parse_rope("ntk:factor=4", {1e4, 64});
  const FrequencyPlan frequencies = make_frequency_plan(policy, {.rotary_dim = 16});
  const std::array<index_t, 4> lengths = {1, 17, 40, 64};
  std::vector<Protocol> curve;
  for (const index_t length : lengths) curve.push_back(protocols::prefix(length, 65));
  const auto rows = evaluate(s.runner(), policy, {.ids = ids}, std::span<const Protocol>(curve));
  REQUIRE(rows.size() == lengths.size());
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    CAPTURE(lengths[r]);
    const auto length = static_cast<std::size_t>(lengths[r]);
    CompensatedSum total;
    double hits = 0;
    for (std::size_t w = 0; w < 5; ++w) {
      const std::span<const TokenId> window = std::span(ids).subspan(65 * w, 65);
      std::vector<HeadResult> results(length);
      score_sequence(s.runner(), frequencies, window.first(length), window.subspan(1, length), {},
                     results);
      CompensatedSum sum;
      for (std::size_t t = 0; t < length; ++t) {
        sum.add(results[t].nll);
        hits += results[t].argmax == window[t + 1];
      }
      total.add(sum.value());
    }
    const auto tokens = static_cast<double>(5 * length);
    CHECK(rows[r].windows == 5);
    CHECK(rows[r].tokens == 5 * lengths[r]);
    CHECK(rows[r].nll_sum == total.value());
    CHECK(rows[r].nll == total.value() / tokens);
    CHECK(rows[r].ppl == elementary::exp(rows[r].nll));
    CHECK(rows[r].top1 == hits / tokens);
  }
}

TEST_CASE("eval/summary: mean, share, standard error and prefixes by hand") {
  const std::vector<TokenId> ids(8, 3);
  const EvalText text{.ids = ids};
  const auto summary = [&](index_t length, const ScoredLosses& losses) {
    return summarize(lower(protocols::prefix(length, 4), text), text, losses);
  };
  const ProtocolSummary two =
      summary(2, {.offset = {0, 2, 4}, .nll = {1, 2, 3, 4}, .top1 = {1, 0, 0, 0}});
  CHECK(two.tokens == 4);
  CHECK(two.nll_sum == 10);
  CHECK(two.nll == 2.5);
  CHECK(two.ppl == doctest::Approx(std::exp(2.5)).epsilon(1e-15));
  CHECK(two.top1 == 0.25);
  CHECK(two.se == doctest::Approx(1.0));  // window means 1.5 and 3.5: deviation sqrt(2), / sqrt(2)
  const ProtocolSummary three =
      summary(3, {.offset = {0, 3, 6}, .nll = {1, 2, 6, 3, 4, 5}, .top1 = {1, 0, 1, 0, 0, 1}});
  CHECK(three.nll == 3.5);
  CHECK(three.se == doctest::Approx(0.5));
  CHECK(three.top1 == 0.5);
}

TEST_CASE("eval/summary: bins, last quarter, bytes and words by hand") {
  const std::vector<TokenId> ids(14, 3);
  const std::vector<std::uint32_t> bytes = {4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 1, 1};
  const std::vector<std::int64_t> cuts = {0, 9, 14}, words = {5, 2};
  const EvalText text{
      .ids = ids, .cu_seqlens = cuts, .bytes = bytes, .words = words, .prefix_id = 1};
  // Two windows: BOS and 9 tokens, BOS and 5.
  const WindowPlan plan = lower(protocols::lmeval(16), text);
  REQUIRE(plan.windows.size() == 2);
  const ScoredLosses losses{.offset = {0, 9, 14},
                            .nll = {1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 2, 2, 2, 4},
                            .top1 = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0}};
  const ProtocolSummary s = summarize(plan, text, losses);
  CHECK(s.documents == 2);
  CHECK(s.tokens == 14);
  CHECK(s.nll_sum == 57);
  CHECK(s.nll == 57.0 / 14);
  CHECK(s.token_nll == s.nll);
  CHECK(s.top1 == 3.0 / 14);
  CHECK(s.bytes == 53);
  CHECK(s.bits_per_byte == doctest::Approx(57 / (53 * std::log(2.0))).epsilon(1e-14));
  CHECK(s.word_ppl == doctest::Approx(std::exp(57.0 / 7)).epsilon(1e-14));
  // Last quarters: 9 / 4 = 2 predictions (8, 9), 5 / 4 = 1 (4).
  CHECK(s.last_quarter_nll == 7);
  REQUIRE(s.bins.size() == 4);
  CHECK(s.bins[0].context == 1);
  CHECK(s.bins[0].tokens == 2);
  CHECK(s.bins[0].nll == 1.5);
  CHECK(s.bins[1].tokens == 4);
  CHECK(s.bins[1].nll == (2 + 3 + 2 + 2) / 4.0);
  CHECK(s.bins[2].context == 4);
  CHECK(s.bins[2].tokens == 6);
  CHECK(s.bins[2].nll == (4 + 5 + 6 + 7 + 2 + 4) / 6.0);
  CHECK(s.bins[3].tokens == 2);
  CHECK(s.bins[3].nll == 8.5);
  // By the scatter of two windows, weighted by tokens: means 5 and 12/5.
  const double a = 9 * (5 - s.nll), b = 5 * (2.4 - s.nll);
  CHECK(s.se == doctest::Approx(std::sqrt(2 * (a * a + b * b)) / 14).epsilon(1e-13));
  CHECK(s.nonfinite_window == -1);

  EvalText unknown = text;
  unknown.bytes = {};
  unknown.words = {};
  const ProtocolSummary u = summarize(lower(protocols::lmeval(16), unknown), unknown, losses);
  CHECK(u.bytes == 0);
  CHECK(std::isnan(u.bits_per_byte));
  CHECK(std::isnan(u.word_ppl));
  CHECK(u.nll == s.nll);
}

TEST_CASE("eval/summary: words are taken in proportion where not every token is scored") {
  const std::vector<TokenId> ids(8, 3);
  const std::vector<std::uint32_t> bytes(8, 5);
  const std::vector<std::int64_t> words = {16};
  const EvalText text{.ids = ids, .bytes = bytes, .words = words};
  const WindowPlan plan = lower(protocols::hf(8), text);  // the first of 8 tokens is not scored
  const ScoredLosses losses{
      .offset = {0, 7}, .nll = std::vector<double>(7, 2), .top1 = std::vector<std::uint8_t>(7)};
  const ProtocolSummary s = summarize(plan, text, losses);
  CHECK(s.bytes == 35);
  CHECK(s.word_ppl == doctest::Approx(std::exp(14 / (16 * 35.0 / 40))).epsilon(1e-14));
  CHECK(std::isnan(s.se));  // one window
}

TEST_CASE("eval/summary: losses that are not finite are named, not averaged away") {
  const std::vector<TokenId> ids(12, 3);
  const EvalText text{.ids = ids};
  const WindowPlan plan = lower(protocols::hf(6, 6), text);
  ScoredLosses losses{.offset = {0, 5, 10},
                      .nll = std::vector<double>(10, 1),
                      .top1 = std::vector<std::uint8_t>(10)};
  losses.nll[7] = std::numeric_limits<double>::quiet_NaN();
  const ProtocolSummary s = summarize(plan, text, losses);
  CHECK(s.nonfinite_window == 1);
  CHECK(s.nonfinite_token == 3);
  CHECK(std::isnan(s.nll));
  CHECK(std::isnan(s.ppl));
  losses.nll[7] = std::numeric_limits<double>::infinity();
  CHECK_FALSE(std::isfinite(summarize(plan, text, losses).ppl));
  losses.nll.pop_back();
  losses.offset.back() = 9;
  CHECK(outcome_of([&] { summarize(plan, text, losses); }) == "usage");
}

TEST_CASE("eval/summary: a window without weight is counted but weighs nothing, one alone fails") {
  const std::vector<TokenId> ids(3, 3);
  const EvalText text{.ids = ids};
  // hf(2, 1): the first window has one label to spare, every later one is weighted by 1 - 1.
  const WindowPlan plan = lower(protocols::hf(2, 1), text);
  REQUIRE(plan.windows.size() == 2);
  const ScoredLosses losses{.offset = {0, 1, 2}, .nll = {3, 100}, .top1 = {0, 0}};
  const ProtocolSummary s = summarize(plan, text, losses);
  CHECK(s.nll == 3);
  CHECK(s.tokens == 2);
  CHECK(s.token_nll == 51.5);
  WindowPlan weightless = plan;
  weightless.windows[0].weight = 0;
  CHECK(outcome_of([&] { summarize(weightless, text, losses); }) == "usage");
}

TEST_CASE("eval/summary: TinyStories-656K under hf, yarn and longlora is what transformers says") {
  const auto path = shared_data("tinystories-656k-hf");
  if (!path) {
    MESSAGE("skipped: shared data is absent");
    return;
  }
  Checkpoint checkpoint = load_test_checkpoint(*path);
  Setup s{make_llama(checkpoint.config, std::move(checkpoint.weights))};
  const std::vector<TokenId> ids(golden::story_ids.begin(), golden::story_ids.end());
  const std::vector<std::int64_t> cuts = {0, golden::story_cut,
                                          static_cast<std::int64_t>(ids.size())};
  const EvalText text{.ids = ids, .cu_seqlens = cuts, .prefix_id = 1};
  const std::pair<Protocol, double> cases[] = {
      {protocols::hf(256, 128), golden::hf_256_128},
      {protocols::hf(256, 100), golden::hf_256_100},
      {protocols::hf(512, 512), golden::hf_512_512},
      {protocols::yarn(256, 128), golden::yarn_256_128},
      {protocols::yarn(256, 256), golden::yarn_256_256},
      {protocols::longlora(256, 100, 4), golden::longlora_256_100_batch_4}};
  std::vector<WindowPlan> requests;
  for (const auto& [protocol, expected] : cases) requests.push_back(lower(protocol, text));
  const PassPlan passes = plan_passes(std::span<const WindowPlan>(requests), checkpoint.rope);
  RunnerScorer scorer(s.runner(), checkpoint.rope);
  const PassLosses losses = score_passes(passes, ids, scorer);
  for (std::size_t r = 0; r < requests.size(); ++r) {
    INFO(canonical_text(requests[r].protocol));
    const ProtocolSummary summary = summarize(
        requests[r], text, read_losses(passes, losses, requests[r], static_cast<index_t>(r)));
    // transformers computes angles and norms in float32 even in a float64 model: about 1e-6.
    CHECK(summary.ppl == doctest::Approx(cases[r].second).epsilon(1e-5));
    // The protocols differ by far more, so the right one is told apart.
    for (const auto& [protocol, other] : cases) {
      if (other != cases[r].second) CHECK(std::fabs(summary.ppl / other - 1) > 2e-3);
    }
  }
}
