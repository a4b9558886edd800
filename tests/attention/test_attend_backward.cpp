// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/backward.hpp"
#include "ropewalk/attention/gradient_panels.hpp"
#include "ropewalk/attention/masks.hpp"

#include "support/arches.hpp"
#include "support/kernel_exp2.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

/// Where bf16 is rounded besides the operands, which are given rounded.
enum class Place { weights, output, d_output, backward_weights, d_scores, nothing };

template <class T>
double power_of_two_of(double x) {
  return std::is_same_v<T, float> ? std::exp2(x) : kernel_exp2(x);
}

/// Queries, keys, values and a gradient of the output, and what the kernels and the formulas make
/// of them.
template <class T>
struct Problem {
  index_t tokens, heads, key_heads, head_dim;
  std::vector<T> q;
  std::vector<float> k, v, d_out;
  std::vector<T> out;
  std::vector<float> lse, dq, dk, dv;                // of the kernels
  std::vector<double> right_dq, right_dk, right_dv;  // of the formulas

  Problem(index_t n, index_t h, index_t g, index_t d)
      : tokens(n), heads(h), key_heads(g), head_dim(d) {
    const auto rounded = [](std::vector<float> x) {
      for (float& value : x) value = to_float(simd::rounded_to<T>(value));
      return x;
    };
    const double scale = 1.5 * log2_e / std::sqrt(static_cast<double>(d));
    for (const float x : normal_floats(n * h * d, 1, scale)) q.push_back(simd::rounded_to<T>(x));
    k = rounded(normal_floats(n * g * d, 2));
    v = rounded(normal_floats(n * g * d, 3));
    d_out = normal_floats(n * h * d, 4);
  }

  template <class Arch>
  void run(const BlockPlan& plan) {
    using Panels = KeyValuePanels<T>;
    const index_t slots = plan.key_slots;
    // What lies beside the tokens in their panels is NaN: no gradient may see it.
    const auto buffer = [](index_t size) {
      return std::vector<T>(static_cast<std::size_t>(size),
                            simd::rounded_to<T>(std::numeric_limits<float>::quiet_NaN()));
    };
    const index_t keys_size = Panels::keys_size(slots, key_heads, head_dim);
    const index_t values_size = Panels::values_size(slots, key_heads, head_dim);
    auto keys = buffer(keys_size), values = buffer(values_size), rows = buffer(values_size),
         columns = buffer(keys_size);
    const Panels panels{keys.data(), values.data(), slots, key_heads, head_dim};
    for (index_t g = 0; g < key_heads; ++g) {
      for (index_t t = 0; t < tokens; ++t) {
        const index_t slot = plan.key_slot[static_cast<std::size_t>(t)];
        panels.store_key(g, slot, k.data() + (t * key_heads + g) * head_dim);
        panels.store_value(g, slot, v.data() + (t * key_heads + g) * head_dim);
      }
      for (const Segment& s : plan.segments) panels.end_values(g, s.key_base + s.num_keys());
    }
    const HeadsView<const T> queries(q.data(), {tokens, heads, head_dim});
    out.assign(q.size(), T{});
    lse.assign(static_cast<std::size_t>(heads * tokens), 0);
    const AttentionBranch<T> branch{queries, panels};
    const AttentionCall<T> forward{{&branch, 1},
                                   &plan,
                                   {out.data(), {tokens, heads, head_dim}},
                                   {lse.data(), {heads, tokens}}};
    Buffer<float> scratch(
        std::max(attention_scratch_size<T>(head_dim), attend_backward_scratch_size<T>(head_dim)));
    for (float& x : scratch.span()) x = std::numeric_limits<float>::quiet_NaN();
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
    const AttentionGradientBranch<T> gradient{queries,
                                              key_rows,
                                              {dq.data(), {tokens, heads, head_dim}},
                                              {dk.data(), {tokens, key_heads, head_dim}}};
    const AttentionGradientCall<T> call{.branches = {&gradient, 1},
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
  void solve(const Visible& visible, Place left_out = Place::nothing) {
    right_dq.assign(q.size(), 0), right_dk.assign(k.size(), 0), right_dv.assign(v.size(), 0);
    const auto at = [](const auto& x, index_t i) {
      return static_cast<double>(to_float(x[static_cast<std::size_t>(i)]));
    };
    const auto rounded = [&](double x, Place place) {
      if (std::is_same_v<T, float> || place == left_out) return x;
      return static_cast<double>(to_float(simd::rounded_to<T>(static_cast<float>(x))));
    };
    for (index_t h = 0; h < heads; ++h) {
      const index_t g = h / (heads / key_heads);
      for (index_t i = 0; i < tokens; ++i) {
        const index_t row = (i * heads + h) * head_dim;
        std::vector<double> s, dp, d_output, output(static_cast<std::size_t>(head_dim));
        std::vector<index_t> seen;
        double sum = 0, delta = 0, largest = -1e300;
        for (index_t c = 0; c < head_dim; ++c) {
          d_output.push_back(rounded(at(d_out, row + c), Place::d_output));
        }
        for (index_t j = 0; j < tokens; ++j) {
          if (!visible(i, j)) continue;
          const index_t key = (j * key_heads + g) * head_dim;
          double score = 0, d = 0;
          for (index_t c = 0; c < head_dim; ++c) {
            score += at(q, row + c) * at(k, key + c);
            d += d_output[static_cast<std::size_t>(c)] * at(v, key + c);
          }
          seen.push_back(key), s.push_back(score), dp.push_back(d);
          largest = std::max(largest, score);
        }
        const double reference = std::nearbyint(largest);
        for (std::size_t j = 0; j < s.size(); ++j) {
          const double w = rounded(power_of_two_of<T>(s[j] - reference), Place::weights);
          for (index_t c = 0; c < head_dim; ++c) {
            output[static_cast<std::size_t>(c)] += w * at(v, seen[j] + c);
          }
          sum += w;
        }
        for (std::size_t c = 0; c < output.size() && sum > 0; ++c) {
          delta += d_output[c] * rounded(output[c] / sum, Place::output);
        }
        for (std::size_t j = 0; j < s.size(); ++j) {
          const double p = power_of_two_of<T>(s[j] - reference) / sum;
          const double ds = rounded(p * (dp[j] - delta), Place::d_scores) * ln_2;
          const double weight = rounded(p, Place::backward_weights);
          for (index_t c = 0; c < head_dim; ++c) {
            right_dq[static_cast<std::size_t>(row + c)] += ds * at(k, seen[j] + c);
            right_dk[static_cast<std::size_t>(seen[j] + c)] += ds * at(q, row + c);
            right_dv[static_cast<std::size_t>(seen[j] + c)] +=
                weight * d_output[static_cast<std::size_t>(c)];
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
  /// Norm of the error, in units of that of what is right or of terms of size 0.1.
  static double relative(const std::vector<float>& found, const std::vector<double>& right) {
    double square = 0, all = 1e-2;
    for (std::size_t i = 0; i < right.size(); ++i) {
      const double e = static_cast<double>(found[i]) - right[i];
      square += e * e, all += right[i] * right[i];
    }
    return std::sqrt(square / all);
  }
  double relative() const {
    const double q_and_k = std::max(relative(dq, right_dq), relative(dk, right_dk));
    const double all = std::max(q_and_k, relative(dv, right_dv));
    return all == all ? all : 1e30;
  }
  void check() const {
    if (std::is_same_v<T, float>) {
      // lse is a float: some 2^-22 of each weight. Sums of n terms of random signs add sqrt(n)
      // roundings; 40 units are twice what is seen for 700 tokens.
      CHECK(error(dq, right_dq) < 40);
      CHECK(error(dk, right_dk) < 40);
      CHECK(error(dv, right_dv) < 40);
    } else {
      // Weights of floats and of doubles are up to 2^-20 apart: 2^-20 / 2^-9 of them are rounded to
      // different neighbours, 2^-8 apart, which is 2^-8 sqrt(2^-11) = 9e-5 of the norm.
      CHECK(relative() < 2e-4);
    }
  }
};

template <class T, class Sums, class Mask>
void compare(index_t tokens, index_t heads, index_t key_heads, index_t head_dim, const Mask& mask,
             std::vector<std::int32_t> cuts = {}) {
  CAPTURE(tokens);
  CAPTURE(head_dim);
  if (cuts.empty()) cuts = {0, static_cast<std::int32_t>(tokens)};
  const auto document = [&](index_t i) {
    return std::upper_bound(cuts.begin(), cuts.end(), static_cast<std::int32_t>(i)) - cuts.begin();
  };
  Problem<T> p(tokens, heads, key_heads, head_dim);
  p.solve([&](index_t i, index_t j) { return mask.visible(i, j) && document(i) == document(j); });
  const BlockPlan plan = make_block_plan(mask, tokens, cuts);
  std::vector<float> dq, dk, dv;
  for_each_arch<Sums>([&]<class Arch>() {
    p.template run<Arch>(plan);
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

template <class T, class Sums = SumsOfPairs>
void compare_sizes() {
  for (const index_t tokens : {1, 2, 5, 7, 63, 64, 65, 95, 97, 130}) {
    compare<T, Sums>(tokens, 2, 2, 32, Causal{});
  }
  for (const index_t head_dim : {8, 12, 16, 40, 64, 72, 128, 256}) {
    compare<T, Sums>(70, 2, 1, head_dim, Causal{});
  }
}

template <class T, class Sums = SumsOfPairs>
void compare_masks() {
  compare<T, Sums>(700, 1, 1, 16, Causal{});
  compare<T, Sums>(100, 6, 2, 24, Causal{});
  compare<T, Sums>(150, 2, 1, 20, Causal{}, {0, 1, 2, 66, 131, 150});
  compare<T, Sums>(200, 2, 2, 16, SlidingWindow(37));
  compare<T, Sums>(600, 1, 1, 16, EveryOther{});
  compare<T, Sums>(90, 2, 1, 16, OneBlind{});
}

template <class T, class Arch = simd::native>
void compare_packed() {
  const index_t tokens = 230, cut = 99, rest = tokens - cut;
  Problem<T> packed(tokens, 4, 2, 24);
  packed.template run<Arch>(
      make_block_plan(Causal{}, tokens, std::vector<std::int32_t>{0, cut, tokens}));
  Problem<T> alone(rest, 4, 2, 24);
  const auto tail = [&](const auto& x) {
    const auto row = std::ssize(x) / tokens;
    return std::remove_cvref_t<decltype(x)>(x.end() - rest * row, x.end());
  };
  alone.q = tail(packed.q), alone.k = tail(packed.k);
  alone.v = tail(packed.v), alone.d_out = tail(packed.d_out);
  alone.template run<Arch>(make_block_plan(Causal{}, rest));
  CHECK(alone.dq == tail(packed.dq));
  CHECK(alone.dk == tail(packed.dk));
  CHECK(alone.dv == tail(packed.dv));
}

}  // namespace

TEST_CASE("attention/backward: gradients are the formulas', at every size, same bits everywhere") {
  compare_sizes<float>();
}
TEST_CASE("attention/backward: several key blocks, grouped heads, documents, windows, bits") {
  compare_masks<float>();
}
TEST_CASE("attention/backward: a document's gradients do not depend on what is packed beside it") {
  compare_packed<float>();
}
TEST_CASE("attention/backward: bf16 of every size are rounded where the formulas are") {
  compare_sizes<bf16>();
}
TEST_CASE("attention/backward: bf16 with key blocks, grouped heads, documents, windows, bits") {
  compare_masks<bf16>();
}
TEST_CASE("attention/backward: bf16 by matrix tiles are rounded where the formulas are") {
  compare_sizes<bf16, SumsOfTiles>();
  compare_masks<bf16, SumsOfTiles>();
}
TEST_CASE("attention/backward: bf16 of a document do not depend on what is packed beside it") {
  compare_packed<bf16>();
  with_fastest_arch<SumsOfTiles>([]<class Arch>() { compare_packed<bf16, Arch>(); });
}

// What check() allows is less than any rounding makes, so that it sees one that is left out.
TEST_CASE("attention/backward: bf16 differ from formulas that leave out a rounding") {
  const index_t tokens = 130;
  Problem<bf16> p(tokens, 2, 1, 32);
  p.run<simd::native>(make_block_plan(Causal{}, tokens));
  for (int place = 0; place <= static_cast<int>(Place::nothing); ++place) {
    CAPTURE(place);
    const auto left_out = static_cast<Place>(place);
    p.solve([](index_t i, index_t j) { return j <= i; }, left_out);
    CHECK((p.relative() < 2e-4) == (left_out == Place::nothing));
    CHECK(p.relative() < 5e-3);
  }
}
