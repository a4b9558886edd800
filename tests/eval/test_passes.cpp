// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/eval/passes.hpp"
#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/rope/rope_spec.hpp"

#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace ropewalk;

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

TEST_CASE("eval/passes: losses of a request are read from its passes, by hand") {
  const std::vector<TokenId> ids(12, 3);
  const EvalText text{.ids = ids};
  const std::vector<WindowPlan> requests = {lower(protocols::prefix(2, 4), text),
                                            lower(protocols::prefix(3, 4), text)};
  const PassPlan plan =
      plan_passes(std::span<const WindowPlan>(requests), parse_rope("default", {1e4, 16}));
  REQUIRE(plan.passes.size() == 3);
  CHECK(plan.passes[1].num_fed() == 3);
  CHECK(plan.passes[1].num_scored() == 3);
  const PassLosses losses{.offset = {0, 3, 6, 9},
                          .nll = {1, 2, 3, 4, 5, 6, 7, 8, 9},
                          .top1 = {0, 1, 0, 1, 1, 0, 0, 0, 1}};
  const ScoredLosses two = read_losses(plan, losses, requests[0], 0);
  CHECK(two.offset == std::vector<std::size_t>{0, 2, 4, 6});
  CHECK(two.nll == std::vector<double>{1, 2, 4, 5, 7, 8});
  CHECK(two.top1 == std::vector<std::uint8_t>{0, 1, 1, 1, 0, 0});
  CHECK(read_losses(plan, losses, requests[1], 1).nll == losses.nll);
  CHECK(outcome_of([&] { read_losses(plan, losses, requests[0], 2); }) == "usage");
  CHECK(outcome_of([&] { read_losses(plan, {.offset = {0, 3}}, requests[0], 0); }) == "usage");
}
