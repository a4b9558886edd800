// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/oracle/attention.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

struct Problem {
  index_t queries, keys, heads, key_heads, head_dim;
  std::vector<float> q, k, v;

  Problem(index_t num_queries, index_t num_keys, index_t num_heads, index_t num_key_heads,
          index_t d, double scale = 1)
      : queries(num_queries),
        keys(num_keys),
        heads(num_heads),
        key_heads(num_key_heads),
        head_dim(d),
        q(normal_floats(queries * heads * d, 1, scale)),
        k(normal_floats(keys * key_heads * d, 2, scale)),
        v(normal_floats(keys * key_heads * d, 3)) {}

  HeadsView<const float> q_view() const { return {q.data(), {queries, heads, head_dim}}; }
  HeadsView<const float> k_view() const { return {k.data(), {keys, key_heads, head_dim}}; }
  HeadsView<const float> v_view() const { return {v.data(), {keys, key_heads, head_dim}}; }
};

struct Result {
  std::vector<float> out, lse;
  friend bool operator==(const Result&, const Result&) = default;
};

template <class Arch = simd::native, class Mask>
Result run(const Problem& p, const Mask& mask, const Executor& executor = {}) {
  Result r{std::vector<float>(p.q.size(), -9.0f),
           std::vector<float>(static_cast<std::size_t>(p.heads * p.queries))};
  attention<Arch>(p.q_view(), p.k_view(), p.v_view(), mask,
                  HeadsView<float>(r.out.data(), {p.queries, p.heads, p.head_dim}),
                  {r.lse.data(), {p.heads, p.queries}}, {.executor = executor});
  return r;
}

/// Bounds of the design: 2e-6 of max |v|, lse 2.5e-7 of max(1, |lse|) plus the error of the scores,
/// which are fma chains of head_dim terms in float.
template <class Mask>
void check_against_oracle(const Problem& p, const Mask& mask, const Result& r, double loosen = 1) {
  const double scale = 1 / std::sqrt(static_cast<double>(p.head_dim));
  const auto exact =
      oracle::attention(p.q_view(), p.k_view(), p.v_view(), mask, scale, p.keys - p.queries);
  double largest_v = 0;
  for (const float x : p.v) largest_v = std::fmax(largest_v, std::fabs(static_cast<double>(x)));
  double worst_out = 0, worst_lse = 0;
  for (index_t t = 0; t < p.queries; ++t) {
    for (index_t h = 0; h < p.heads; ++h) {
      for (index_t c = 0; c < p.head_dim; ++c) {
        const auto at = static_cast<std::size_t>((t * p.heads + h) * p.head_dim + c);
        const double error = std::fabs(static_cast<double>(r.out[at]) - exact.out.view()(t, h, c));
        worst_out = error <= worst_out ? worst_out : error;  // a NaN shows
      }
      const double want = exact.lse.view()(h, t);
      const double got = static_cast<double>(r.lse[static_cast<std::size_t>(h * p.queries + t)]);
      if (std::isinf(want)) {
        CHECK(got == want);
        continue;
      }
      const double error = std::fabs(got - want) / std::fmax(1, std::fabs(want));
      worst_lse = error <= worst_lse ? worst_lse : error;
    }
  }
  CHECK(worst_out <= loosen * 2e-6 * largest_v);
  CHECK(worst_lse <= loosen * 5e-7);
}

/// The diagonal band |i - j| <= 1 and every third key before: visible() alone, rows not intervals.
struct Comb {
  bool visible(index_t i, index_t j) const { return j <= i && (i - j <= 1 || j % 3 == 0); }
};
/// Nobody sees key 0, query 5 sees nothing.
struct Holes {
  bool visible(index_t i, index_t j) const { return j <= i && j != 0 && i != 5; }
};

}  // namespace

TEST_CASE("attention/attention: every length around the tiles agrees with the oracle") {
  for_each_arch([]<class Arch>() {
    for (const index_t n : {1, 2, 5, 6, 7, 15, 16, 17, 63, 64, 65, 95, 96, 97, 129, 200}) {
      const Problem p(n, n, 2, 1, 16);
      check_against_oracle(p, Causal{}, run<Arch>(p, Causal{}));
    }
  });
}

TEST_CASE("attention/attention: lengths around the key block, with a cache before the queries") {
  for (const index_t n : {511, 512, 513, 1025}) {
    const Problem p(n, n, 1, 1, 8);
    check_against_oracle(p, Causal{}, run(p, Causal{}));
  }
  for (const auto& [queries, keys] : {std::pair<index_t, index_t>{1, 1000}, {3, 515}, {97, 700}}) {
    const Problem p(queries, keys, 2, 2, 8);
    check_against_oracle(p, Causal{}, run(p, Causal{}));
    check_against_oracle(p, SlidingWindow(40), run(p, SlidingWindow(40)));
  }
}

TEST_CASE("attention/attention: every even head_dim, grouped heads") {
  for_each_arch([]<class Arch>() {
    for (index_t d = 2; d <= 40; d += 2) {
      const Problem p(33, 33, 4, 2, d);
      check_against_oracle(p, Causal{}, run<Arch>(p, Causal{}));
    }
    for (const index_t d : {64, 72, 128, 136, 256}) {
      const Problem p(40, 40, 3, 1, d);
      check_against_oracle(p, Causal{}, run<Arch>(p, Causal{}));
    }
  });
}

TEST_CASE("attention/attention: every kind of mask agrees with the oracle") {
  const Problem p(610, 610, 2, 1, 16);
  const std::vector<std::int32_t> documents = {0, 3, 3, 130, 520, 521, 610};
  const CausalDocuments packed(documents);
  check_against_oracle(p, Full{}, run(p, Full{}));
  check_against_oracle(p, packed, run(p, packed));
  for (const index_t window : {1, 2, 17, 100, 600}) {
    check_against_oracle(p, SlidingWindow(window), run(p, SlidingWindow(window)));
  }
  const Intersection both{packed, SlidingWindow(50)};
  check_against_oracle(p, both, run(p, both));
  check_against_oracle(p, Comb{}, run(p, Comb{}));
  check_against_oracle(p, Holes{}, run(p, Holes{}));
  const Intersection comb{Comb{}, SlidingWindow(30)};
  check_against_oracle(p, comb, run(p, comb));
}

TEST_CASE(
    "attention/attention: a mask by visible() alone gives the bits of the same mask by intervals") {
  struct PlainCausal {
    bool visible(index_t i, index_t j) const { return j <= i; }
  };
  const Problem p(600, 600, 1, 1, 16);
  CHECK(run(p, PlainCausal{}) == run(p, Causal{}));
}

TEST_CASE("attention/attention: logits of +-1e4 stay finite, an overflow becomes NaN") {
  const Problem hot(70, 70, 1, 1, 16, 50);
  const Result r = run(hot, Causal{});
  // Scores of 1e4 carry rounding errors of 1e4 * 2^-24 = 6e-4, which pass into the weights.
  check_against_oracle(hot, Causal{}, r, 1000);
  Problem broken(8, 8, 1, 1, 16);
  broken.k[3 * 16] = std::numeric_limits<float>::quiet_NaN();
  Problem huge(8, 8, 1, 1, 16);
  for (float& x : huge.k) x *= 1e18f;
  for (float& x : huge.q) x *= 1e18f;
  const Result nan = run(broken, Causal{}), overflow = run(huge, Causal{});
  CHECK(std::isfinite(nan.lse[2]));
  for (std::size_t t = 3; t < 8; ++t) CHECK(std::isnan(nan.lse[t]));
  for (std::size_t t = 0; t < 8; ++t) CHECK(!std::isfinite(overflow.lse[t]));
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
  constexpr double log2_e = 1.44269504088896340736;
  const auto scale = static_cast<float>(log2_e / std::sqrt(static_cast<double>(d)));
  std::vector<float> scaled[2] = {p.q, q2};
  std::vector<float> keys[2], values(static_cast<std::size_t>(joined.key_slots * d));
  AttentionBranch branches[2];
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
  const AttentionCall call{branches, &joined, {out.data(), {n, 1, d}}, {}};
  Buffer<float> scratch(attention_scratch_size(d));
  for (index_t b = 0; b < static_cast<index_t>(joined.query_blocks.size()); ++b) {
    attend<simd::native>(call, b, 0, scratch.data());
  }
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
