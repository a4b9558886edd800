// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <string_view>
#include <tuple>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/eval/summary.hpp"
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

TEST_CASE("eval/passes: shared passes give the bits of separate ones, for all protocols at once") {
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

TEST_CASE("eval/passes: yarn_truncate's 64 lengths cost one window a document") {
  const auto ids = random_tokens(2 * 512, 23, 9);
  const std::vector<std::int64_t> cuts = {0, 512, 1024};
  const EvalText text{.ids = ids, .cu_seqlens = cuts, .prefix_id = 1};
  std::vector<WindowPlan> requests;
  for (index_t k = 1; k <= 64; ++k) {
    requests.push_back(lower(protocols::yarn_truncate(8 * k, 512), text));
  }
  const auto plan = [&](const char* spec) {
    return plan_passes(std::span<const WindowPlan>(requests), parse_rope(spec, {1e4, 256}));
  };
  const PassPlan fixed = plan("yarn:factor=4");
  CHECK(fixed.passes.size() == 2);
  CHECK(fixed.fed_tokens() == 2 * 511);
  CHECK(fixed.passes[0] ==
        Pass{.seq_len = 512, .prefix = 1, .begin = 0, .end = 511, .first_scored = 1});
  // Dynamic NTK: lengths up to the trained 256 have equal frequencies and share; the 32 above do
  // not, whatever windows they have in common.
  const PassPlan dynamic = plan("dynamic:factor=2");
  CHECK(dynamic.passes.size() == 2 * (1 + 32));
  for (std::size_t r = 0; r < requests.size(); ++r) {
    for (const index_t p : dynamic.pass_of[r]) {
      const std::int64_t ours = 8 * (static_cast<std::int64_t>(r) + 1);
      const std::int64_t its = dynamic.passes[static_cast<std::size_t>(p)].seq_len;
      CHECK((ours <= 256 ? its == 256 : its == ours));
    }
  }
}

TEST_CASE("eval/passes: windows share by first tokens alone, across protocols and documents") {
  const auto ids = random_tokens(64, 23, 9);
  const std::vector<std::int64_t> cuts = {0, 24, 64};
  const EvalText text{.ids = ids, .cu_seqlens = cuts, .prefix_id = 1};
  const AnyFrequency policy = parse_rope("default", {1e4, 16});
  const auto passes_of = [&](const std::vector<Protocol>& protocols) {
    std::vector<WindowPlan> requests;
    for (const Protocol& p : protocols) requests.push_back(lower(p, text));
    return plan_passes(std::span<const WindowPlan>(requests), policy).passes.size();
  };
  CHECK(passes_of({protocols::hf(16, 16)}) == 4);
  CHECK(passes_of({protocols::hf(16, 16), protocols::hf(32, 32)}) == 4);  // 0 and 32 are shared
  CHECK(passes_of({protocols::hf(16, 16), protocols::longlora(16, 16)}) == 4);
  CHECK(passes_of({protocols::press(16)}) == 4);
  CHECK(passes_of({protocols::press(16, 1)}) == 49);  // the 16 growing ones are one pass
  CHECK(passes_of({protocols::press(16), protocols::hf(16, 16)}) == 8);  // one token apart
  CHECK(passes_of({protocols::yarn_truncate(16), protocols::mean_of_ppl(24)}) == 2);
  CHECK(passes_of({protocols::mean_of_ppl(16), protocols::llamacpp(16)}) == 5);  // 0 is shared
  CHECK(passes_of({protocols::lmeval(16), protocols::mean_of_ppl(16)}) == 5);
  CHECK(passes_of({}) == 0);
}

TEST_CASE("eval/passes: only asked-for losses are computed, and a stop is heard") {
  const auto ids = random_tokens(64, 23, 9);
  const EvalText text{.ids = ids, .prefix_id = 1};
  const WindowPlan plan = lower(protocols::llamacpp(16), text);
  const PassPlan passes = plan_passes(std::span(&plan, 1), parse_rope("default", {1e4, 16}));
  index_t asked = 0, calls = 0;
  const auto scorer = [&](std::int64_t seq_len, std::span<const TokenId> tokens,
                          std::span<const TokenId> targets, std::span<HeadResult> results) {
    CHECK(seq_len == 16);
    CHECK(tokens.size() == 15);
    CHECK(tokens[0] == 1);
    CHECK(results.size() == 15);
    for (std::size_t t = 0; t < targets.size(); ++t) {
      if (targets[t] != not_scored) ++asked;
      CHECK((targets[t] == not_scored) == (t < 8));
      if (t + 1 < tokens.size() && t >= 8) CHECK(targets[t] == tokens[t + 1]);
    }
  };
  const PassLosses losses = score_passes(passes, ids, scorer, [&](index_t i) {
    CHECK(i == calls);
    ++calls;
  });
  CHECK(calls == 4);
  CHECK(asked == 4 * 7);
  CHECK(losses.nll.size() == 28);
  struct Stop {};
  CHECK_THROWS_AS(score_passes(passes, ids, scorer, [](index_t) { throw Stop{}; }), Stop);
  CHECK(outcome_of([&] {
          score_passes(passes, std::span<const TokenId>(ids).first(40), scorer);
        }) == "usage");
  CHECK(outcome_of([&] { read_losses(passes, losses, plan, 1); }) == "usage");
}
