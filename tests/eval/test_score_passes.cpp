// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <set>
#include <string_view>
#include <tuple>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/eval/score_passes.hpp"
#include "ropewalk/model/cost.hpp"
#include "ropewalk/rope/rope_spec.hpp"

#include "double_scorer.hpp"
#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

struct FloatModel {
  Llama<float> model = random_llama(tiny_config, 4);
  KernelTable<float> kernels = make_kernel_table<simd::native>();
  ThreadPool pool{2};
  Workspace workspace = {};

  RunnerScorer<float, AnyFrequency> scorer(const AnyFrequency& policy) {
    return {{&model, &kernels, pool.executor(), &workspace}, policy};
  }
};

bool same(const ScoredLosses& a, const ScoredLosses& b) {
  return a.offset == b.offset && a.nll == b.nll && a.top1 == b.top1;
}

std::vector<WindowPlan> all_protocols(const EvalText& text) {
  std::vector<WindowPlan> requests;
  for (const index_t length : {8, 16, 32}) {
    for (const std::string_view name : protocol_names) {
      ProtocolOptions options;
      if (name == "yarn" || name == "longlora" || name == "hf" || name == "press") {
        options.stride = 8;
      }
      requests.push_back(lower(make_protocol(name, length, options), text));
    }
  }
  return requests;
}

}  // namespace

TEST_CASE(
    "eval/score_passes: shared passes give the bits of separate ones, for all protocols at once") {
  FloatModel m;
  const auto ids = random_tokens(190, 23, 9);
  const std::vector<std::int64_t> cuts = {0, 70, 111, 190};
  const EvalText text{.ids = ids, .cu_seqlens = cuts, .prefix_id = 1};
  const std::vector<WindowPlan> requests = all_protocols(text);
  for (const char* spec : {"default", "yarn:factor=4", "dynamic:factor=2"}) {
    CAPTURE(spec);
    auto scorer = m.scorer(parse_rope(spec, {1e4, 16}));
    const AnyFrequency policy = parse_rope(spec, {1e4, 16});
    const PassPlan shared = plan_passes(std::span<const WindowPlan>(requests), policy);
    const PassLosses losses = score_passes(shared, ids, scorer);
    std::size_t separate_passes = 0;
    for (std::size_t r = 0; r < requests.size(); ++r) {
      CAPTURE(requests[r].protocol.name);
      CAPTURE(requests[r].protocol.window);
      // Every window is fed alone, to its own end.
      ScoredLosses alone{.offset = {0}};
      for (const ScoredWindow& w : requests[r].windows) {
        WindowPlan single{.protocol = requests[r].protocol, .windows = {w}};
        const PassPlan one = plan_passes(std::span(&single, 1), policy);
        REQUIRE(one.passes.size() == 1);
        const ScoredLosses part = read_losses(one, score_passes(one, ids, scorer), single, 0);
        alone.nll.insert(alone.nll.end(), part.nll.begin(), part.nll.end());
        alone.top1.insert(alone.top1.end(), part.top1.begin(), part.top1.end());
        alone.offset.push_back(alone.nll.size());
        ++separate_passes;
      }
      CHECK(same(read_losses(shared, losses, requests[r], static_cast<index_t>(r)), alone));
    }
    // Windows that begin alike under equal frequencies are one pass: 149 of 483 where frequencies
    // are static, more where only lengths up to the trained 16 are alike.
    std::set<std::tuple<std::int64_t, index_t, TokenId>> beginnings;
    for (const WindowPlan& request : requests) {
      for (const ScoredWindow& w : request.windows) {
        beginnings.insert({policy.length_key(w.seq_len), w.begin, w.prefix});
      }
    }
    CHECK(shared.passes.size() == beginnings.size());
    CHECK(shared.passes.size() == (std::string_view(spec) == "dynamic:factor=2" ? 244 : 149));
    CHECK(separate_passes == 483);
  }
}

TEST_CASE("eval/score_passes: only asked-for losses are computed, and a stop is heard") {
  const auto ids = random_tokens(64, 23, 9);
  const EvalText text{.ids = ids, .prefix_id = 1};
  const WindowPlan plan = lower(protocols::llamacpp(16), text);
  const PassPlan passes = plan_passes(std::span(&plan, 1), parse_rope("default", {1e4, 16}));
  index_t asked = 0, calls = 0, batches = 0;
  const auto scorer = [&](PassBatch& batch) {
    ++batches;
    REQUIRE(batch.cu_seqlens().size() == batch.size() + 1);
    CHECK(batch.results().size() == batch.tokens().size());
    for (std::size_t i = 0; i < batch.size(); ++i) {
      CHECK(batch.pass(i).seq_len == 16);
      const auto first = static_cast<std::size_t>(batch.cu_seqlens()[i]);
      const auto end = static_cast<std::size_t>(batch.cu_seqlens()[i + 1]);
      REQUIRE(end - first == 15);
      CHECK(batch.tokens()[first] == 1);
      for (std::size_t t = first; t < end; ++t) {
        const TokenId target = batch.targets()[t];
        if (target != not_scored) ++asked;
        CHECK((target == not_scored) == (t < first + 8));
        if (t + 1 < end && t >= first + 8) CHECK(target == batch.tokens()[t + 1]);
      }
    }
  };
  for (const index_t limit : {1, 64, 128, 191, 1000}) {
    asked = calls = batches = 0;
    const PassLosses losses = score_passes(
        passes, ids, scorer,
        [&](index_t i) {
          CHECK(i == calls);
          ++calls;
        },
        limit);
    CHECK(calls == 4);
    CHECK(asked == 4 * 7);
    CHECK(losses.nll.size() == 28);
    CHECK(batches == (limit < 128 ? 4 : limit < 256 ? 2 : 1));
  }
  struct Stop {};
  CHECK_THROWS_AS(score_passes(passes, ids, scorer, [](index_t) { throw Stop{}; }), Stop);
  CHECK(outcome_of([&] {
          score_passes(passes, std::span<const TokenId>(ids).first(40), scorer);
        }) == "usage");
}

TEST_CASE("eval/score_passes: batches are cut by tokens, in order, where passes may share") {
  const auto cut = [](std::vector<index_t> fed, index_t limit) { return cut_batches(fed, limit); };
  using Ends = std::vector<std::size_t>;
  CHECK(cut({}, 10) == Ends{});
  CHECK(cut({3}, 10) == Ends{1});
  CHECK(cut({64, 64, 64}, 128) == Ends{2, 3});
  CHECK(cut({64, 64, 64}, 127) == Ends{1, 2, 3});
  CHECK(cut({1, 1, 1}, 128) == Ends{2, 3});  // a token takes a panel of keys
  CHECK(cut({65, 1, 63, 1}, 256) == Ends{3, 4});
  CHECK(cut({999, 1, 999}, 128) == Ends{1, 2, 3});  // too long for any batch: alone
  CHECK(cut({1, 1, 1}, 0) == Ends{1, 2, 3});
  const std::vector<index_t> fed = {1, 1, 1, 1};
  CHECK(cut_batches(fed, 999, [](std::size_t i) { return i != 2; }) == Ends{2, 4});
}

TEST_CASE("eval/score_passes: a batch of mixed lengths and bases has the bits of separate passes") {
  FloatModel m;
  const auto ids = random_tokens(1500, 23, 9);
  // More than a key block, a query block, a panel, and one token; with and without prefix.
  const std::vector<Pass> passes = {{.begin = 0, .end = 3},
                                    {.prefix = 1, .begin = 5, .end = 70, .first_scored = 33},
                                    {.begin = 70, .end = 671, .first_scored = 500},
                                    {.prefix = 2, .begin = 671, .end = 672},
                                    {.begin = 100, .end = 229},
                                    {.begin = 800, .end = 1400, .first_scored = 1}};
  // Bases, a factor in the rows, log-n with and without clip, a part of the channels left still.
  std::vector<FrequencyPlan> plans;
  for (const char* spec :
       {"theta=1e4", "theta=1e6", "yarn:factor=4", "linear:factor=1,logn_length=16",
        "dynamic:factor=2", "linear:factor=8,logn_length=9,logn_clip=false"}) {
    plans.push_back(make_frequency_plan(parse_rope(spec, {1e4, 16}),
                                        {.rotary_dim = tiny_config.head_dim, .seq_len = 600}));
  }
  PassBatch batch, alone;
  std::vector<const FrequencyPlan*> of_pass;
  batch.clear();
  for (std::size_t i = 0; i < passes.size(); ++i) {
    batch.add(passes[i], ids);
    of_pass.push_back(&plans[i]);
  }
  for (const Executor& executor : {Executor(), m.pool.executor()}) {
    Workspace workspace;
    const Runner<float> run{&m.model, &m.kernels, executor, &workspace};
    score_batch(run, std::span<const FrequencyPlan* const>(of_pass), batch.cu_seqlens(),
                batch.tokens(), batch.targets(), batch.results());
    BatchShape shape;
    for (const Pass& pass : passes) {
      shape.tokens += pass.num_fed();
      shape.key_slots += round_up(pass.num_fed(), key_panel);
      shape.rotary_rows += pass.num_fed();
    }
    CHECK(shape.tokens == static_cast<index_t>(batch.tokens().size()));
    CHECK(forward_memory(tiny_config, shape, executor.workers(), false).workspace ==
          static_cast<index_t>(workspace.peak_bytes()));
    for (std::size_t i = 0; i < passes.size(); ++i) {
      CAPTURE(i);
      alone.clear();
      alone.add(passes[i], ids);
      score_sequence(run, plans[i], alone.tokens(), alone.targets(), {}, alone.results());
      std::vector<double> together, separate;
      std::vector<std::uint8_t> hits, separate_hits;
      batch.read(i, together, hits);
      alone.read(0, separate, separate_hits);
      CHECK(static_cast<index_t>(together.size()) == passes[i].num_scored());
      CHECK(together == separate);
      CHECK(hits == separate_hits);
      // Another base gives other losses: the plans are not mixed up. One token sees itself alone,
      // whatever its rotation.
      if (passes[i].num_fed() == 1) continue;
      score_sequence(run, plans[(i + 1) % plans.size()], alone.tokens(), alone.targets(), {},
                     alone.results());
      separate.clear();
      alone.read(0, separate, separate_hits);
      CHECK(together != separate);
    }
  }
}

TEST_CASE("eval/score_passes: plans that no pass can share are refused, not mixed") {
  FloatModel m;
  const auto ids = random_tokens(40, 23, 9);
  const auto plan = [](const char* spec) {
    return make_frequency_plan(parse_rope(spec, {1e4, 16}), {.rotary_dim = tiny_config.head_dim});
  };
  const FrequencyPlan plain = plan("default");
  Workspace workspace;
  const Runner<float> run{&m.model, &m.kernels, {}, &workspace};
  const std::int32_t cuts[] = {0, 20, 39};
  std::vector<HeadResult> results(39);
  for (const char* spec :
       {"linear:factor=1,logit_scale=2", "linear:factor=1,partial_rotary_factor=0.5"}) {
    CAPTURE(spec);
    const FrequencyPlan other = plan(spec);
    CHECK_FALSE(can_share_pass(plain, other));
    const FrequencyPlan* const both[] = {&plain, &other};
    CHECK(outcome_of([&] {
            score_batch<float>(run, both, cuts, std::span<const TokenId>(ids).first(39),
                               std::span<const TokenId>(ids).subspan(1), results);
          }) == "usage");
  }
  CHECK(can_share_pass(plain, plan("yarn:factor=4,logn_length=16")));
}
