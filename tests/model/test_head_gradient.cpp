// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/model/head_gradient.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

TEST_CASE("model/head_gradient: softmax minus the target, chunk by chunk, same bits everywhere") {
  const index_t size = 24, rows = 7;
  for (const index_t vocab : {5, 64, 200, 1100}) {
    PackedMatrix<float> head(vocab, size);
    const auto values = normal_floats(vocab * size, 1, 0.7);
    for (index_t n = 0; n < vocab; ++n) {
      for (index_t k = 0; k < size; ++k) {
        head(n, k) = values[static_cast<std::size_t>(n * size + k)];
      }
    }
    const auto hidden = normal_floats(rows * size, 2);
    std::vector<float> scaled = hidden;
    for (float& x : scaled) x *= static_cast<float>(log2_e);
    const auto targets = random_tokens(rows, vocab, 3);
    const std::vector<float> weights = {1, 0.5f, 0, 2, 1e-3f, 1, 1};
    std::vector<std::vector<float>> all;
    for_each_arch([&]<class Arch>() {
      std::vector<HeadResult> results(static_cast<std::size_t>(rows)), same(results.size());
      std::vector<double> lse(results.size());
      head_nll_lse<Arch>(scaled.data(), size, targets, head, results, lse.data());
      head_nll<Arch>(scaled.data(), size, targets, head, same);
      std::vector<float> gradient(static_cast<std::size_t>(rows * vocab));
      const index_t ld = 1024;
      std::vector<float> chunk(static_cast<std::size_t>(rows * ld), 9.0f);
      for (index_t first = 0; first < vocab; first += head_chunk) {
        const Interval part{first, std::min(first + head_chunk, vocab)};
        head_gradient<Arch>(scaled.data(), size, targets, head, lse.data(), weights.data(), part,
                            chunk.data(), ld);
        for (index_t r = 0; r < rows; ++r) {
          for (index_t n = 0; n < round_up(part.size(), lane_count); ++n) {
            const float d = chunk[static_cast<std::size_t>(r * ld + n)];
            if (n >= part.size()) {
              CHECK(d == 0);  // what weight gradients read beside the last output
            } else {
              gradient[static_cast<std::size_t>(r * vocab + first + n)] = d;
            }
          }
        }
      }
      for (index_t r = 0; r < rows; ++r) {
        const auto at = static_cast<std::size_t>(r);
        CHECK(results[at].nll == same[at].nll);
        std::vector<double> z;
        double sum = 0;
        for (index_t n = 0; n < vocab; ++n) {
          double s = 0;
          for (index_t k = 0; k < size; ++k) {
            s += static_cast<double>(hidden[static_cast<std::size_t>(r * size + k)]) *
                 static_cast<double>(head(n, k));
          }
          z.push_back(s);
          sum += std::exp(s);
        }
        CHECK(std::fabs(lse[at] - std::log(sum)) < 1e-5);
        for (index_t n = 0; n < vocab; ++n) {
          const double p = std::exp(z[static_cast<std::size_t>(n)]) / sum;
          const double right = static_cast<double>(weights[at]) * (p - (n == targets[at] ? 1 : 0));
          const double found =
              static_cast<double>(gradient[static_cast<std::size_t>(r * vocab + n)]);
          // |s| <= 40 in base 2: the probability is right to 42 * 2^-23.
          CHECK(std::fabs(found - right) <=
                static_cast<double>(weights[at]) * (42 * 0x1p-23 * p + 0x1p-23));
        }
      }
      all.push_back(gradient);
      CHECK(all.front() == gradient);
    });
  }
}

TEST_CASE("model/head_gradient: a row that is not a number stays one") {
  PackedMatrix<float> head(70, 4);
  for (index_t n = 0; n < 70; ++n) head(n, 0) = 1;
  const std::vector<float> hidden = {std::numeric_limits<float>::quiet_NaN(), 0, 0, 0};
  const std::vector<TokenId> target = {3};
  HeadResult result;
  double lse = 0;
  head_nll_lse<simd::native>(hidden.data(), 4, target, head, {&result, 1}, &lse);
  const float weight = 1;
  std::vector<float> gradient(80);
  head_gradient<simd::native>(hidden.data(), 4, target, head, &lse, &weight, {0, 70},
                              gradient.data(), 80);
  for (index_t n = 0; n < 70; ++n) CHECK(std::isnan(gradient[static_cast<std::size_t>(n)]));
}
