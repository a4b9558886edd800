// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/rng.hpp"
#include "ropewalk/oracle/attention.hpp"

namespace ropewalk {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T = double>
Tensor<T, 3> normal_heads(index_t tokens, index_t heads, index_t head_dim, std::uint32_t stream) {
  Tensor<T, 3> x({tokens, heads, head_dim});
  const Random random{.seed = 1, .stream = stream};
  for (index_t i = 0; i < x.size(); ++i) {
    x.data()[i] = static_cast<T>(random.normal(static_cast<std::uint64_t>(i)));
  }
  return x;
}

double largest_difference(const Tensor<double, 3>& a, const Tensor<double, 3>& b) {
  REQUIRE(a.size() == b.size());
  double d = 0;
  for (index_t i = 0; i < a.size(); ++i) d = std::max(d, std::abs(a.data()[i] - b.data()[i]));
  return d;
}

struct Odd {
  bool visible(index_t i, index_t j) const { return j <= i && j % 2 == 1; }
};
struct Even {
  bool visible(index_t i, index_t j) const { return j <= i && j % 2 == 0; }
};

TEST_CASE("oracle/attention: two keys by hand") {
  // softmax_scale 2, logits 0 and log 3: weights 1/4 and 3/4, lse log 4.
  std::vector<double> q{0.5}, k{0, std::log(3.0)}, v{10, 20, 30, 40};
  const oracle::AttentionResult r = oracle::attention(
      HeadsView<double>(q.data(), {1, 1, 1}), HeadsView<double>(k.data(), {2, 1, 1}),
      HeadsView<double>(v.data(), {2, 1, 2}), Full{}, 2.0);
  CHECK(r.out.view()(0, 0, 0) == doctest::Approx(25).epsilon(1e-15));
  CHECK(r.out.view()(0, 0, 1) == doctest::Approx(35).epsilon(1e-15));
  CHECK(r.lse.view()(0, 0) == doctest::Approx(std::log(4.0)).epsilon(1e-15));
}

TEST_CASE("oracle/attention: equals the sums in long double") {
  constexpr index_t tokens = 23, num_heads = 6, num_kv = 2, dim = 5;
  const auto q = normal_heads(tokens, num_heads, dim, 0);
  const auto k = normal_heads(tokens, num_kv, dim, 1);
  const auto v = normal_heads(tokens, num_kv, dim, 2);
  const SlidingWindow mask{7};
  const auto r = oracle::attention(q.view(), k.view(), v.view(), mask, 0.4);
  double worst = 0;
  for (index_t h = 0; h < num_heads; ++h) {
    const index_t g = h / 3;  // heads 0, 1, 2 read key head 0
    for (index_t i = 0; i < tokens; ++i) {
      long double sum = 0, out[dim] = {};
      for (index_t j = 0; j < tokens; ++j) {
        if (!(i - 7 < j && j <= i)) continue;
        long double s = 0;
        for (index_t c = 0; c < dim; ++c) {
          s += static_cast<long double>(q.view()(i, h, c)) *
               static_cast<long double>(k.view()(j, g, c));
        }
        const long double p = std::exp(0.4l * s);
        sum += p;
        for (index_t c = 0; c < dim; ++c) {
          out[c] += p * static_cast<long double>(v.view()(j, g, c));
        }
      }
      for (index_t c = 0; c < dim; ++c) {
        const double expected = static_cast<double>(out[c] / sum);
        worst = std::max(worst, std::abs(r.out.view()(i, h, c) - expected));
      }
      worst = std::max(worst, std::abs(r.lse.view()(h, i) - static_cast<double>(std::log(sum))));
    }
  }
  CHECK(worst < 1e-14);  // rows of 7 keys of order 1: tens of roundings of 1e-16
}

TEST_CASE("oracle/attention: a query that sees nothing gives 0 and -inf") {
  const auto x = normal_heads(4, 2, 3, 3);
  const auto r = oracle::attention(x.view(), x.view(), x.view(), Odd{}, 1.0);
  for (index_t h = 0; h < 2; ++h) {
    CHECK(r.lse.view()(h, 0) == -infinity);  // token 0 sees no odd key
    CHECK(std::isfinite(r.lse.view()(h, 1)));
    for (index_t c = 0; c < 3; ++c) {
      CHECK(r.out.view()(0, h, c) == 0);
      CHECK(r.out.view()(1, h, c) == x.view()(1, h, c));  // one key: weight exactly 1
    }
  }
  const auto none =
      oracle::attention(x.view(), x.view().slice({0, 0}), x.view().slice({0, 0}), Full{}, 1.0);
  CHECK(none.lse.view()(1, 3) == -infinity);
  CHECK(none.out.view()(3, 1, 2) == 0);
}

TEST_CASE("oracle/attention: logits of 1e6 neither overflow nor vanish, NaN shows") {
  std::vector<double> q{1}, k{1e6, 1e6 - 1, -1e6}, v{1, 2, 3};
  const auto run = [&] {
    return oracle::attention(HeadsView<double>(q.data(), {1, 1, 1}),
                             HeadsView<double>(k.data(), {3, 1, 1}),
                             HeadsView<double>(v.data(), {3, 1, 1}), Full{}, 1.0);
  };
  const double e = std::exp(-1.0);
  CHECK(run().out.view()(0, 0, 0) == doctest::Approx((1 + 2 * e) / (1 + e)).epsilon(1e-15));
  CHECK(run().lse.view()(0, 0) == doctest::Approx(1e6 + std::log1p(e)).epsilon(1e-15));
  k[1] = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(run().out.view()(0, 0, 0)));
  CHECK(std::isnan(run().lse.view()(0, 0)));
  k = {k[1], k[1], k[1]};
  CHECK(std::isnan(run().lse.view()(0, 0)));
}

TEST_CASE("oracle/attention: two halves of the keys merge by lse to the whole") {
  const auto q = normal_heads(17, 4, 8, 4), k = normal_heads(17, 2, 8, 5),
             v = normal_heads(17, 2, 8, 6);
  const auto whole = oracle::attention(q.view(), k.view(), v.view(), Causal{}, 0.3);
  const auto odd = oracle::attention(q.view(), k.view(), v.view(), Odd{}, 0.3);
  const auto even = oracle::attention(q.view(), k.view(), v.view(), Even{}, 0.3);
  Tensor<double, 3> merged({17, 4, 8});
  for (index_t i = 0; i < 17; ++i) {
    for (index_t h = 0; h < 4; ++h) {
      const double lse = whole.lse.view()(h, i);
      const double a = std::exp(odd.lse.view()(h, i) - lse);
      const double b = std::exp(even.lse.view()(h, i) - lse);
      CHECK(a + b == doctest::Approx(1).epsilon(1e-14));
      for (index_t c = 0; c < 8; ++c) {
        merged.view()(i, h, c) = a * odd.out.view()(i, h, c) + b * even.out.view()(i, h, c);
      }
    }
  }
  CHECK(largest_difference(merged, whole.out) < 1e-14);
}

TEST_CASE("oracle/attention: later queries over cached keys, and documents apart") {
  const auto q = normal_heads(12, 2, 4, 7), k = normal_heads(12, 2, 4, 8),
             v = normal_heads(12, 2, 4, 9);
  const auto whole = oracle::attention(q.view(), k.view(), v.view(), Causal{}, 0.5);
  const auto last =
      oracle::attention(q.view().slice({9, 12}), k.view(), v.view(), Causal{}, 0.5, 9);
  const std::vector<std::int32_t> offsets{0, 5, 12};
  const auto packed =
      oracle::attention(q.view(), k.view(), v.view(), CausalDocuments{offsets}, 0.5);
  const Interval second{5, 12};
  const auto alone = oracle::attention(q.view().slice(second), k.view().slice(second),
                                       v.view().slice(second), Causal{}, 0.5);
  double worst = 0;
  for (index_t h = 0; h < 2; ++h) {
    for (index_t c = 0; c < 4; ++c) {
      for (index_t i = 0; i < 3; ++i) {
        worst = std::max(worst, std::abs(last.out.view()(i, h, c) - whole.out.view()(9 + i, h, c)));
      }
      for (index_t i = 0; i < 7; ++i) {
        worst =
            std::max(worst, std::abs(alone.out.view()(i, h, c) - packed.out.view()(5 + i, h, c)));
      }
      CHECK(packed.out.view()(5, h, c) == v.view()(5, h, c));
    }
  }
  CHECK(worst < 1e-15);  // the products may be summed in another order
}

TEST_CASE("oracle/attention: reads float and bf16 exactly; refuses shapes that do not fit") {
  const auto x = normal_heads<float>(6, 2, 4, 10);
  Tensor<double, 3> wide({6, 2, 4});
  Tensor<bf16, 3> narrow({6, 2, 4});
  Tensor<double, 3> narrow_wide({6, 2, 4});
  for (index_t i = 0; i < x.size(); ++i) {
    wide.data()[i] = static_cast<double>(x.data()[i]);
    narrow.data()[i] = to_bf16(x.data()[i]);
    narrow_wide.data()[i] = static_cast<double>(to_float(narrow.data()[i]));
  }
  const auto attend = [](auto view) { return oracle::attention(view, view, view, Causal{}, 0.5); };
  CHECK(largest_difference(attend(x.view()).out, attend(wide.view()).out) == 0);
  CHECK(largest_difference(attend(narrow.view()).out, attend(narrow_wide.view()).out) == 0);
  const auto three = normal_heads(6, 3, 4, 0);
  CHECK_THROWS_AS(oracle::attention(three.view(), wide.view(), wide.view(), Causal{}, 1.0), Error);
  CHECK_THROWS_AS(oracle::attention(wide.view(), wide.view(), three.view(), Causal{}, 1.0), Error);
}

}  // namespace
}  // namespace ropewalk
