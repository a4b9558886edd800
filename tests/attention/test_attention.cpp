// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/masks.hpp"
#include "ropewalk/oracle/attention.hpp"

#include "attention/attention_problem.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

namespace {

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

TEST_CASE("attention/attention: what a kept workspace holds from before changes no bit") {
  Problem nothing_finite(700, 700, 2, 1, 72);
  for (auto* x : {&nothing_finite.q, &nothing_finite.k, &nothing_finite.v}) {
    std::fill(x->begin(), x->end(), std::numeric_limits<float>::quiet_NaN());
  }
  for_each_arch([&]<class Arch>() {
    Workspace workspace;
    // The second call gets memory that is kept, the first one what a pass needs beside it.
    for (int i = 0; i < 2; ++i) run<Arch>(nothing_finite, Causal{}, {}, &workspace);
    for (const index_t n : {1, 17, 95, 130, 600}) {
      const Problem p(n, n + 3, 2, 1, 24);
      CHECK(run<Arch>(p, Causal{}, {}, &workspace) == run<Arch>(p, Causal{}));
      const Problem whole(n, n, 2, 1, 24);
      CHECK(run<Arch>(whole, Holes{}, {}, &workspace) == run<Arch>(whole, Holes{}));
    }
  });
}

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

TEST_CASE("attention/attention: weights far below the largest still count") {
  // Logits of deviation 9: rows whose weights span 2^40. Scores of 40 carry rounding errors of
  // some 40 * 2^-24, ten times those of the other cases.
  const Problem p(200, 200, 2, 1, 16, 3);
  check_against_oracle(p, Causal{}, run(p, Causal{}), 10);
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
