// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/oracle/rotary.hpp"

namespace ropewalk {
namespace {

using Positions = std::vector<std::int64_t>;
constexpr PairLayout layouts[] = {PairLayout::half_split, PairLayout::interleaved};

Tensor<double, 3> normal_heads(index_t tokens, index_t heads, index_t head_dim,
                               std::uint32_t stream) {
  Tensor<double, 3> x({tokens, heads, head_dim});
  const Random random{.seed = 2, .stream = stream};
  for (index_t i = 0; i < x.size(); ++i) {
    x.data()[i] = random.normal(static_cast<std::uint64_t>(i));
  }
  return x;
}

/// Frequencies 10000^(-2i/d).
std::vector<double> frequencies(index_t rotary_dim) {
  std::vector<double> w;
  for (index_t i = 0; i < rotary_dim / 2; ++i) {
    w.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim)));
  }
  return w;
}

double dot(const Tensor<double, 3>& a, const Tensor<double, 3>& b) {
  double sum = 0;
  for (index_t i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
  return sum;
}

TEST_CASE("oracle/rotary: one head by hand, both layouts") {
  // d = 4, theta = 10000, position 1; values computed with 15 digits elsewhere.
  const std::array<double, 4> half_split{-1.9841106485555495, 1.959900667496664, 2.4623779024123156,
                                         4.019799668334994};
  const std::array<double, 4> interleaved{-1.1426396637476532, 1.922075596544176,
                                          2.9598506679133294, 4.029799501669161};
  const Positions position{1};
  const auto table = oracle::rotary_table(position, frequencies(4), 1);
  for (const PairLayout layout : layouts) {
    std::array<double, 4> x{1, 2, 3, 4};
    oracle::rotate(HeadsView<double>(x.data(), {1, 1, 4}), table, layout);
    const auto& expected = layout == PairLayout::half_split ? half_split : interleaved;
    for (std::size_t c = 0; c < 4; ++c) {
      CHECK(std::abs(x[c] - expected[c]) < 2e-15);  // two roundings of values up to 4
    }
  }
}

TEST_CASE("oracle/rotary: angles stay exact at large positions") {
  struct Case {
    std::int64_t position;
    double inv_freq, cos, sin;
  };
  // From 60-digit arithmetic on the double inv_freq.
  constexpr Case cases[] = {
      {1, 1.0, 0.540302305868139717, 0.841470984807896507},
      {4097, 0.31622776601683794, 0.316286280588169872, 0.948663791188269965},
      {16777215, 1.0, -0.31757645973239708, -0.948232667768748187},
      {16777215, 0.31622776601683794, 0.997035683051756624, 0.0769405401691274097},
      {16777217, 0.00011547819846894582, -0.573624197073251254, 0.819118599796188127},
      {4294967291, 1.0, 0.191433865040655576, -0.981505514663873943},
      {4294967291, 0.31622776601683794, 0.128904883168808486, -0.991656962409499667},
      {1099511627779, 0.31622776601683794, 0.530998533947318827, -0.84737273790569761},
      {1099511627779, 0.00011547819846894582, 0.967457442272536875, -0.253033787055169728},
  };
  for (const Case& c : cases) {
    const Positions position{c.position};
    const std::vector<double> inv_freq{c.inv_freq};
    const auto table = oracle::rotary_table(position, inv_freq, 1);
    CAPTURE(c.position);
    CAPTURE(c.inv_freq);
    CHECK(std::abs(table.cos.view()(0, 0) - c.cos) < 2e-16);
    CHECK(std::abs(table.sin.view()(0, 0) - c.sin) < 2e-16);
  }
}

TEST_CASE("oracle/rotary: attention_factor multiplies, position 0 does nothing else") {
  const Positions positions{0, 7, 0};
  const auto table = oracle::rotary_table(positions, frequencies(6), 1.25);
  for (const PairLayout layout : layouts) {
    const auto x = normal_heads(3, 2, 8, 0);
    auto y = normal_heads(3, 2, 8, 0);
    oracle::rotate(y.view(), table, layout);
    for (index_t t = 0; t < 3; ++t) {
      for (index_t h = 0; h < 2; ++h) {
        double before = 0, after = 0;
        for (index_t c = 0; c < 6; ++c) {
          before += x.view()(t, h, c) * x.view()(t, h, c);
          after += y.view()(t, h, c) * y.view()(t, h, c);
          if (t != 1) CHECK(y.view()(t, h, c) == 1.25 * x.view()(t, h, c));
        }
        CHECK(after == doctest::Approx(1.25 * 1.25 * before).epsilon(1e-14));
        // Channels past the rotated ones pass through, unscaled.
        CHECK(y.view()(t, h, 6) == x.view()(t, h, 6));
        CHECK(y.view()(t, h, 7) == x.view()(t, h, 7));
      }
    }
  }
}

TEST_CASE("oracle/rotary: the transpose is the adjoint, and the inverse up to the factor squared") {
  const Positions positions{3, 1 << 20, -5, 4095};
  const auto table = oracle::rotary_table(positions, frequencies(10), 1.5);
  for (const PairLayout layout : layouts) {
    const auto x = normal_heads(4, 3, 10, 1), y = normal_heads(4, 3, 10, 2);
    auto rotated = normal_heads(4, 3, 10, 1), back = normal_heads(4, 3, 10, 2);
    oracle::rotate(rotated.view(), table, layout);
    oracle::rotate_transposed(back.view(), table, layout);
    CHECK(std::abs(dot(rotated, y) - dot(x, back)) < 1e-13);  // 120 products of order 1
    oracle::rotate_transposed(rotated.view(), table, layout);
    double worst = 0;
    for (index_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, std::abs(rotated.data()[i] - 2.25 * x.data()[i]));
    }
    CHECK(worst < 1e-14);
  }
}

TEST_CASE("oracle/rotary: scores depend on the distance alone") {
  const auto w = frequencies(16);
  for (const PairLayout layout : layouts) {
    const auto score = [&](std::int64_t m, std::int64_t n) {
      auto q = normal_heads(1, 1, 16, 3), k = normal_heads(1, 1, 16, 4);
      oracle::rotate(q.view(), oracle::rotary_table(Positions{m}, w, 1), layout);
      oracle::rotate(k.view(), oracle::rotary_table(Positions{n}, w, 1), layout);
      return dot(q, k);
    };
    for (const std::int64_t shift : {std::int64_t{1}, std::int64_t{1} << 24}) {
      CHECK(std::abs(score(100 + shift, 37 + shift) - score(100, 37)) < 1e-14);
    }
    CHECK(std::abs(score(100, 37) - score(37, 100)) > 1e-3);  // and on its sign
  }
}

TEST_CASE("oracle/rotary: a layout is a permutation of the other") {
  constexpr index_t pairs = 5;
  const Positions positions{11, 300};
  const auto table = oracle::rotary_table(positions, frequencies(2 * pairs), 1);
  auto meta = normal_heads(2, 2, 2 * pairs, 5);
  Tensor<double, 3> hf({2, 2, 2 * pairs});
  const auto permute = [&](bool check) {
    for (index_t t = 0; t < 2; ++t) {
      for (index_t h = 0; h < 2; ++h) {
        for (index_t i = 0; i < pairs; ++i) {
          for (index_t r = 0; r < 2; ++r) {
            double& target = hf.view()(t, h, r * pairs + i);
            const double source = meta.view()(t, h, 2 * i + r);
            if (check) CHECK(target == source);
            target = source;
          }
        }
      }
    }
  };
  permute(false);
  oracle::rotate(hf.view(), table, PairLayout::half_split);
  oracle::rotate(meta.view(), table, PairLayout::interleaved);
  permute(true);
}

TEST_CASE("oracle/rotary: a table that does not fit is refused") {
  const auto table = oracle::rotary_table(Positions{0, 1}, frequencies(8), 1);
  auto short_head = normal_heads(2, 1, 6, 0), few_tokens = normal_heads(1, 1, 8, 0);
  CHECK_THROWS_AS(oracle::rotate(short_head.view(), table, PairLayout::half_split), Error);
  CHECK_THROWS_AS(oracle::rotate(few_tokens.view(), table, PairLayout::half_split), Error);
}

}  // namespace
}  // namespace ropewalk
