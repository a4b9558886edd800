// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/backward.hpp"
#include "ropewalk/attention/gradient_panels.hpp"
#include "ropewalk/attention/masks.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

/// Queries, keys, values and a gradient of the output, and what the kernels and the formulas make
/// of them.
struct Problem {
  index_t tokens, heads, key_heads, head_dim;
  std::vector<float> q, k, v, d_out;
  std::vector<float> out, lse, dq, dk, dv;           // of the kernels
  std::vector<double> right_dq, right_dk, right_dv;  // of the formulas

  Problem(index_t n, index_t h, index_t g, index_t d)
      : tokens(n), heads(h), key_heads(g), head_dim(d) {
    q = normal_floats(n * h * d, 1, 1.5 * log2_e / std::sqrt(static_cast<double>(d)));
    k = normal_floats(n * g * d, 2);
    v = normal_floats(n * g * d, 3);
    d_out = normal_floats(n * h * d, 4);
  }

  template <class Arch>
  void run(const BlockPlan& plan) {
    using Panels = KeyValuePanels<float>;
    const index_t slots = plan.key_slots;
    // What lies beside the tokens in their panels is NaN: no gradient may see it.
    const auto buffer = [](index_t size) {
      return std::vector<float>(static_cast<std::size_t>(size),
                                std::numeric_limits<float>::quiet_NaN());
    };
    const index_t keys_size = Panels::keys_size(slots, key_heads, head_dim);
    const index_t values_size = Panels::values_size(slots, key_heads, head_dim);
    auto keys = buffer(keys_size), values = buffer(values_size), rows = buffer(values_size),
         columns = buffer(keys_size);
    const Panels panels{keys.data(), values.data(), slots, key_heads, head_dim};
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t g = 0; g < key_heads; ++g) {
        const index_t slot = plan.key_slot[static_cast<std::size_t>(t)];
        panels.store_key(g, slot, k.data() + (t * key_heads + g) * head_dim);
        panels.store_value(g, slot, v.data() + (t * key_heads + g) * head_dim);
      }
    }
    const HeadsView<const float> queries(q.data(), {tokens, heads, head_dim});
    out.assign(q.size(), 0);
    lse.assign(static_cast<std::size_t>(heads * tokens), 0);
    const AttentionBranch<float> branch{queries, panels};
    const AttentionCall<float> forward{{&branch, 1},
                                       &plan,
                                       {out.data(), {tokens, heads, head_dim}},
                                       {lse.data(), {heads, tokens}}};
    Buffer<float> scratch(std::max(attention_scratch_size<float>(head_dim),
                                   attend_backward_scratch_size<float>(head_dim)));
    for (index_t b = 0; b < std::ssize(plan.query_blocks); ++b) {
      for (index_t g = 0; g < key_heads; ++g)
        attend<Arch>(forward, {{b, b + 1}, g}, scratch.data());
    }
    const Panels key_rows{keys.data(), rows.data(), slots, key_heads, head_dim};
    const Panels value_columns{columns.data(), nullptr, slots, key_heads, head_dim};
    for (const Segment& s : plan.segments) {
      for (index_t first = 0; first < s.queries.size(); first += panel_width) {
        for (index_t g = 0; g < key_heads; ++g) {
          transpose_panels<Arch>(panels, g, s.key_base + first,
                                 std::min(panel_width, s.queries.size() - first), key_rows,
                                 value_columns);
        }
      }
    }
    dq.assign(q.size(), 77), dk.assign(k.size(), 77), dv.assign(v.size(), 77);
    const AttentionGradientBranch<float> gradient{queries,
                                                  key_rows,
                                                  {dq.data(), {tokens, heads, head_dim}},
                                                  {dk.data(), {tokens, key_heads, head_dim}}};
    const AttentionGradientCall<float> call{.branches = {&gradient, 1},
                                            .values = value_columns,
                                            .plan = &plan,
                                            .output = {out.data(), {tokens, heads, head_dim}},
                                            .lse = {lse.data(), {heads, tokens}},
                                            .d_output = {d_out.data(), {tokens, heads, head_dim}},
                                            .d_values = {dv.data(), {tokens, key_heads, head_dim}}};
    for (index_t s = 0; s < std::ssize(plan.segments); ++s) {
      for (index_t g = 0; g < key_heads; ++g) attend_backward<Arch>(call, s, g, scratch.data());
    }
  }

  /// softmax, its derivative and the chain rule, pair by pair. visible(i, j)
  template <class Visible>
  void solve(const Visible& visible) {
    right_dq.assign(q.size(), 0), right_dk.assign(k.size(), 0), right_dv.assign(v.size(), 0);
    const auto at = [](const std::vector<float>& x, index_t i) {
      return static_cast<double>(x[static_cast<std::size_t>(i)]);
    };
    for (index_t h = 0; h < heads; ++h) {
      const index_t g = h / (heads / key_heads);
      for (index_t i = 0; i < tokens; ++i) {
        const index_t row = (i * heads + h) * head_dim;
        std::vector<double> p, dp;
        std::vector<index_t> seen;
        double sum = 0, delta = 0, largest = -1e300;
        for (index_t j = 0; j < tokens; ++j) {
          if (!visible(i, j)) continue;
          const index_t key = (j * key_heads + g) * head_dim;
          double s = 0, d = 0;
          for (index_t c = 0; c < head_dim; ++c) {
            s += at(q, row + c) * at(k, key + c);
            d += at(d_out, row + c) * at(v, key + c);
          }
          seen.push_back(key), p.push_back(s), dp.push_back(d);
          largest = std::max(largest, s);
        }
        for (double& s : p) sum += s = std::exp2(s - largest);
        for (std::size_t j = 0; j < p.size(); ++j) delta += (p[j] /= sum) * dp[j];
        for (std::size_t j = 0; j < p.size(); ++j) {
          const double ds = p[j] * (dp[j] - delta) * ln_2;
          for (index_t c = 0; c < head_dim; ++c) {
            right_dq[static_cast<std::size_t>(row + c)] += ds * at(k, seen[j] + c);
            right_dk[static_cast<std::size_t>(seen[j] + c)] += ds * at(q, row + c);
            right_dv[static_cast<std::size_t>(seen[j] + c)] += p[j] * at(d_out, row + c);
          }
        }
      }
    }
  }

  /// Largest error in units of 2^-24 of the largest right element, or of 1, the size of the terms.
  static double error(const std::vector<float>& found, const std::vector<double>& right) {
    double largest = 1, worst = 0;
    for (const double x : right) largest = std::max(largest, std::fabs(x));
    for (std::size_t i = 0; i < right.size(); ++i) {
      const double e = std::fabs(static_cast<double>(found[i]) - right[i]);
      worst = e == e ? std::max(worst, e) : 1e30;
    }
    return worst / largest * 0x1p24;
  }
  void check() const {
    // lse is a float: some 2^-22 of each weight. Sums of n terms of random signs add sqrt(n)
    // roundings; 40 units are twice what is seen for 700 tokens.
    CHECK(error(dq, right_dq) < 40);
    CHECK(error(dk, right_dk) < 40);
    CHECK(error(dv, right_dv) < 40);
  }
};

template <class Mask>
void compare(index_t tokens, index_t heads, index_t key_heads, index_t head_dim, const Mask& mask,
             std::vector<std::int32_t> cuts = {}) {
  CAPTURE(tokens);
  CAPTURE(head_dim);
  if (cuts.empty()) cuts = {0, static_cast<std::int32_t>(tokens)};
  const auto document = [&](index_t i) {
    return std::upper_bound(cuts.begin(), cuts.end(), static_cast<std::int32_t>(i)) - cuts.begin();
  };
  Problem p(tokens, heads, key_heads, head_dim);
  p.solve([&](index_t i, index_t j) { return mask.visible(i, j) && document(i) == document(j); });
  const BlockPlan plan = make_block_plan(mask, tokens, cuts);
  std::vector<float> dq, dk, dv;
  for_each_arch([&]<class Arch>() {
    p.run<Arch>(plan);
    p.check();
    if (dq.empty()) dq = p.dq, dk = p.dk, dv = p.dv;
    CHECK(dq == p.dq);
    CHECK(dk == p.dk);
    CHECK(dv == p.dv);
  });
}

/// Keys of the same parity, in no interval: the plan needs bits.
struct EveryOther {
  bool visible(index_t i, index_t j) const { return j <= i && (i - j) % 2 == 0; }
};
/// Query 5 sees nothing.
struct OneBlind {
  bool visible(index_t i, index_t j) const { return j <= i && i != 5; }
};

}  // namespace

TEST_CASE("attention/backward: gradients are the formulas', at every size, same bits everywhere") {
  for (const index_t tokens : {1, 2, 5, 7, 63, 64, 65, 95, 97, 130}) {
    compare(tokens, 2, 2, 32, Causal{});
  }
  for (const index_t head_dim : {8, 12, 16, 40, 64, 72, 128, 256}) {
    compare(70, 2, 1, head_dim, Causal{});
  }
}

TEST_CASE("attention/backward: several key blocks, grouped heads, documents, windows, bits") {
  compare(700, 1, 1, 16, Causal{});
  compare(100, 6, 2, 24, Causal{});
  compare(150, 2, 1, 20, Causal{}, {0, 1, 2, 66, 131, 150});
  compare(200, 2, 2, 16, SlidingWindow(37));
  compare(600, 1, 1, 16, EveryOther{});
  compare(90, 2, 1, 16, OneBlind{});
}

TEST_CASE("attention/backward: a document's gradients do not depend on what is packed beside it") {
  const index_t tokens = 230;
  Problem packed(tokens, 4, 2, 24);
  packed.run<simd::native>(
      make_block_plan(Causal{}, tokens, std::vector<std::int32_t>{0, 99, 230}));
  Problem alone(131, 4, 2, 24);
  const auto tail = [](const std::vector<float>& x, index_t rows, index_t all) {
    const auto row = static_cast<index_t>(x.size()) / all;
    return std::vector<float>(x.end() - rows * row, x.end());
  };
  alone.q = tail(packed.q, 131, tokens), alone.k = tail(packed.k, 131, tokens);
  alone.v = tail(packed.v, 131, tokens), alone.d_out = tail(packed.d_out, 131, tokens);
  alone.run<simd::native>(make_block_plan(Causal{}, 131));
  CHECK(alone.dq == tail(packed.dq, 131, tokens));
  CHECK(alone.dk == tail(packed.dk, 131, tokens));
  CHECK(alone.dv == tail(packed.dv, 131, tokens));
}
