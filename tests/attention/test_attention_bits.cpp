// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"

#include "attention/attention_problem.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

TEST_CASE(
    "attention/attention: a mask by visible() alone gives the bits of the same mask by intervals") {
  struct PlainCausal {
    bool visible(index_t i, index_t j) const { return j <= i; }
  };
  const Problem p(600, 600, 1, 1, 16);
  CHECK(run(p, PlainCausal{}) == run(p, Causal{}));
}

TEST_CASE(
    "attention/attention: a prefix, a chunk, threads and instruction sets have the same bits") {
  const index_t n = 1111, heads = 2, d = 24;
  const Problem p(n, n, heads, 1, d);
  const Result whole = run(p, Causal{});
  for_each_arch([&]<class Arch>() {
    ThreadPool pool(3);
    CHECK(run<Arch>(p, Causal{}, pool.executor()) == whole);
  });
  const auto row = [&](const Result& r, index_t t) {
    const auto first = r.out.begin() + t * heads * d;
    return std::vector<float>(first, first + heads * d);
  };
  for (const index_t prefix : {1, 100, 512, 513, 800}) {
    Problem q = p;
    q.queries = q.keys = prefix;
    q.q.resize(static_cast<std::size_t>(prefix * heads * d));
    const Result r = run(q, Causal{});
    for (index_t t = 0; t < prefix; ++t) REQUIRE(row(r, t) == row(whole, t));
  }
  for (const index_t past : {1, 511, 700, 1110}) {  // the last queries alone, keys before them kept
    Problem q = p;
    q.queries = n - past;
    q.q.erase(q.q.begin(), q.q.begin() + past * heads * d);
    const Result r = run(q, Causal{});
    for (index_t t = 0; t < n - past; ++t) REQUIRE(row(r, t) == row(whole, past + t));
  }
}

TEST_CASE("attention/attention: not a trace of an invisible value reaches a row") {
  for_each_arch([]<class Arch>() {
    Problem p(23, 23, 1, 1, 16);  // keys 16 .. 22 share a vector, so that rows see part of it
    const Result before = run<Arch>(p, Causal{});
    for (index_t c = 0; c < 16; ++c) p.v[static_cast<std::size_t>(22 * 16 + c)] = 1e30f;
    const Result after = run<Arch>(p, Causal{});
    CHECK(std::equal(after.out.begin(), after.out.end() - 16, before.out.begin()));
    CHECK(after.out.back() != before.out.back());
  });
}

TEST_CASE("attention/attention: packed documents have the bits of the documents alone") {
  const std::vector<std::int32_t> documents = {0, 5, 70, 600, 1200};
  const index_t d = 16;
  const Problem p(1200, 1200, 1, 1, d);
  const Result packed = run(p, CausalDocuments(documents));
  for (std::size_t i = 0; i + 1 < documents.size(); ++i) {
    const index_t begin = documents[i], length = documents[i + 1] - begin;
    Problem alone(length, length, 1, 1, d);
    const auto cut = [&](const std::vector<float>& x) {
      return std::vector<float>(x.begin() + begin * d, x.begin() + (begin + length) * d);
    };
    alone.q = cut(p.q), alone.k = cut(p.k), alone.v = cut(p.v);
    const Result r = run(alone, Causal{});
    CHECK(r.out == cut(packed.out));
  }
}

TEST_CASE("attention/attention: two branches score near and far keys by rotations of their own") {
  // Keys at distance < 40 score with (q, k), farther ones with (q2, k2): the shape of ReRoPE.
  const index_t n = 700, d = 16;
  const Problem p(n, n, 1, 1, d);
  const auto q2 = normal_floats(n * d, 11), k2 = normal_floats(n * d, 12);
  struct Far {
    bool visible(index_t i, index_t j) const { return i - j >= 40; }
  };
  BlockPlan plan = make_block_plan(SlidingWindow(40), n);
  const BlockPlan far = make_block_plan(Far{}, n);
  // Joins the ranges of both plans per query block, branch 0 first: blocks merge in any order.
  BlockPlan joined = plan;
  joined.ranges.clear();
  joined.bits = far.bits;
  for (std::size_t b = 0; b < plan.query_blocks.size(); ++b) {
    const auto first = static_cast<index_t>(joined.ranges.size());
    for (index_t r = plan.query_blocks[b].ranges.begin; r < plan.query_blocks[b].ranges.end; ++r) {
      joined.ranges.push_back(plan.ranges[static_cast<std::size_t>(r)]);
    }
    for (index_t r = far.query_blocks[b].ranges.begin; r < far.query_blocks[b].ranges.end; ++r) {
      joined.ranges.push_back(far.ranges[static_cast<std::size_t>(r)]);
      joined.ranges.back().branch = 1;
    }
    joined.query_blocks[b].ranges = {first, static_cast<index_t>(joined.ranges.size())};
  }
  const auto scale = static_cast<float>(log2_e / std::sqrt(static_cast<double>(d)));
  std::vector<float> scaled[2] = {p.q, q2};
  std::vector<float> keys[2], values(static_cast<std::size_t>(joined.key_slots * d));
  AttentionBranch<float> branches[2];
  for (std::size_t b = 0; b < 2; ++b) {
    for (float& x : scaled[b]) x *= scale;
    keys[b].resize(static_cast<std::size_t>(joined.key_slots * d));
    branches[b] = {{scaled[b].data(), {n, 1, d}},
                   {keys[b].data(), values.data(), joined.key_slots, 1, d}};
    for (index_t t = 0; t < n; ++t) {
      branches[b].panels.store_key(0, joined.key_slot[static_cast<std::size_t>(t)],
                                   (b == 0 ? p.k : k2).data() + t * d);
      branches[b].panels.store_value(0, joined.key_slot[static_cast<std::size_t>(t)],
                                     p.v.data() + t * d);
    }
  }
  std::vector<float> out(static_cast<std::size_t>(n * d));
  const AttentionCall<float> call{branches, &joined, {out.data(), {n, 1, d}}, {}};
  Buffer<float> scratch(attention_scratch_size<float>(d));
  const index_t blocks = std::ssize(joined.query_blocks);
  attend<simd::native>(call, {{0, blocks}}, scratch.data());
  const std::vector<float> together = out;
  std::ranges::fill(out, 0.0f);
  for (index_t b = 0; b < blocks; ++b) attend<simd::native>(call, {{b, b + 1}}, scratch.data());
  CHECK(out == together);
  for (const index_t i : {0, 39, 40, 41, 300, 511, 512, 699}) {
    double sum = 0;
    std::vector<double> mean(static_cast<std::size_t>(d));
    for (index_t j = 0; j <= i; ++j) {
      double score = 0;
      for (index_t c = 0; c < d; ++c) {
        const auto qi = static_cast<std::size_t>(i * d + c),
                   kj = static_cast<std::size_t>(j * d + c);
        score += i - j < 40 ? static_cast<double>(p.q[qi]) * static_cast<double>(p.k[kj])
                            : static_cast<double>(q2[qi]) * static_cast<double>(k2[kj]);
      }
      const double w = std::exp(score / std::sqrt(static_cast<double>(d)));
      sum += w;
      for (index_t c = 0; c < d; ++c) {
        mean[static_cast<std::size_t>(c)] +=
            w * static_cast<double>(p.v[static_cast<std::size_t>(j * d + c)]);
      }
    }
    for (index_t c = 0; c < d; ++c) {
      CHECK(static_cast<double>(out[static_cast<std::size_t>(i * d + c)]) ==
            doctest::Approx(mean[static_cast<std::size_t>(c)] / sum)
                .epsilon(0)
                .scale(1)
                .epsilon(1e-5));
    }
  }
}

TEST_CASE("attention/blockwise: tasks are all blocks and key heads once, the latest blocks first") {
  struct Case {
    index_t tokens, heads, key_heads, head_dim, workers, together;
  };
  // Blocks of 96; 1 MiB of keys and values are 4096 tokens of 32 channels or 2048 of 64.
  for (const Case& c : {Case{1, 2, 2, 64, 1, 1},
                        {600, 3, 3, 64, 1, 1},
                        {3072, 2, 2, 64, 2, 4},
                        {3072, 2, 2, 64, 3, 2},
                        {3072, 2, 2, 64, 9, 1},
                        {2049, 1, 1, 64, 1, 2},
                        {2048, 1, 1, 64, 1, 1},
                        {4096, 1, 1, 32, 1, 1},
                        {4097, 1, 1, 32, 1, 4},
                        {5000, 4, 2, 64, 1, 2},
                        {5000, 8, 1, 64, 1, 1}}) {
    CAPTURE(c.tokens);
    CAPTURE(c.workers);
    const BlockPlan plan = make_block_plan(Causal{}, c.tokens);
    const index_t blocks = std::ssize(plan.query_blocks);
    const AttentionBranch<float> branch{
        {}, {nullptr, nullptr, plan.key_slots, c.key_heads, c.head_dim}};
    const AttentionCall<float> call{
        {&branch, 1}, &plan, {nullptr, {c.tokens, c.heads, c.head_dim}}, {}};
    const auto nothing = [](void*, WorkerTask) {};
    const AttentionTasks tasks(call, Executor(nullptr, c.workers, nothing));
    CHECK(tasks.size() == (blocks + c.together - 1) / c.together * c.key_heads);
    std::vector<int> seen(static_cast<std::size_t>(blocks * c.key_heads), 0);
    index_t before = blocks;
    for (index_t i = 0; i < tasks.size(); ++i) {
      const AttentionTask task = tasks[i];
      CHECK(task.blocks.end <= before);
      CHECK(task.blocks.size() <= c.together);
      before = task.blocks.end;
      for (index_t b = task.blocks.begin; b < task.blocks.end; ++b) {
        ++seen[static_cast<std::size_t>(b * c.key_heads + task.key_head)];
      }
    }
    CHECK(std::ranges::count(seen, 1) == blocks * c.key_heads);
  }
}

TEST_CASE("attention/attention: shapes that do not fit are refused") {
  Problem p(4, 4, 4, 2, 8);
  std::vector<float> out(p.q.size());
  const HeadsView<float> out_view(out.data(), {4, 4, 8});
  const HeadsView<const float> k3(p.k.data(), {4, 3, 4});
  CHECK_THROWS_AS(attention(p.q_view(), k3, k3, Causal{}, out_view), Error);
  CHECK_THROWS_AS(attention(p.q_view().slice({0, 4}), p.k_view().slice({0, 3}),
                            p.v_view().slice({0, 3}), Causal{}, out_view),
                  Error);
  CHECK_THROWS_AS(attention(p.q_view(), p.k_view(), p.v_view(), Causal{}, out_view.slice({0, 3})),
                  Error);
}

TEST_CASE("attention/attention: no queries, whatever keys there are, are no work") {
  for (const index_t keys : {0, 1, 1000}) {
    const Problem p(0, keys, 2, 1, 16);
    CHECK(run(p, Causal{}).out.empty());
  }
}
