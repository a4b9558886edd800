// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/linalg/rows_gradient.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

double at(const std::vector<float>& x, index_t i) {
  return static_cast<double>(x[static_cast<std::size_t>(i)]);
}

}  // namespace

TEST_CASE("linalg/rows_gradient: RMSNorm's gradients are the formula, at every width") {
  constexpr double eps = 1e-5, unit = 0x1p-24;
  for_each_arch([&]<class Arch>() {
    for (const index_t size : {1, 2, 15, 16, 17, 40, 128, 257}) {
      const index_t rows = 3, ld = round_up(size, lane_count);
      const auto x = normal_floats(rows * ld, 1), dy = normal_floats(rows * ld, 2),
                 past = normal_floats(rows * ld, 3), g = normal_floats(size, 4),
                 start = normal_floats(size, 5);
      std::vector<float> dx(x.size(), 7.0f), inverse(3), dg = start;
      rmsnorm_gradient<Arch>(x.data(), ld, rows, size, g.data(), eps, dy.data(), ld, past.data(),
                             ld, dx.data(), ld, inverse.data());
      norm_weight_gradient<Arch>(x.data(), ld, dy.data(), ld, inverse.data(), rows, {0, size},
                                 dg.data());
      std::vector<double> right_dg(static_cast<std::size_t>(size));
      for (index_t r = 0; r < rows; ++r) {
        double squares = 0, dot = 0, size_of_dot = 0;
        for (index_t i = 0; i < size; ++i) {
          const double term = at(x, r * ld + i) * at(g, i) * at(dy, r * ld + i);
          squares += at(x, r * ld + i) * at(x, r * ld + i);
          dot += term;
          size_of_dot += std::fabs(term);
        }
        const double n = static_cast<double>(size), s = 1 / std::sqrt(squares / n + eps);
        CHECK(std::fabs(static_cast<double>(inverse[static_cast<std::size_t>(r)]) - s) <
              4 * unit * s);
        for (index_t i = 0; i < size; ++i) {
          const double direct = s * at(g, i) * at(dy, r * ld + i);
          const double along = at(x, r * ld + i) * s * s * s / n;
          const double right = at(past, r * ld + i) + direct - along * dot;
          // The sum's terms are rounded a few times each, whatever they cancel to.
          const double size_of_all =
              std::fabs(at(past, r * ld + i)) + std::fabs(direct) + std::fabs(along) * size_of_dot;
          CHECK(std::fabs(at(dx, r * ld + i) - right) < 8 * unit * size_of_all);
          right_dg[static_cast<std::size_t>(i)] += at(dy, r * ld + i) * at(x, r * ld + i) * s;
        }
        for (index_t i = size; i < ld; ++i) CHECK(at(dx, r * ld + i) == 0);
      }
      for (index_t i = 0; i < size; ++i) {
        CHECK(std::fabs(at(dg, i) - at(start, i) - right_dg[static_cast<std::size_t>(i)]) <
              1e-5);  // some ten roundings of numbers below 10
      }
    }
  });
}

TEST_CASE("linalg/rows_gradient: the derivative of silu times up, also far from zero") {
  for_each_arch([&]<class Arch>() {
    const index_t size = 48;
    const auto up = normal_floats(size, 2), dout = normal_floats(size, 3);
    std::vector<float> gate = normal_floats(size, 1, 3);
    gate[0] = 0, gate[1] = 90, gate[2] = -90, gate[3] = -79, gate[4] = 1e-20f;
    std::vector<float> d_gate = gate, d_up = up, out(48), forward(48);
    swiglu<Arch>(gate.data(), up.data(), size, 1, size, forward.data(), size);
    swiglu_gradient<Arch>(d_gate.data(), d_up.data(), size, 1, size, dout.data(), size, out.data(),
                          size);
    CHECK(out == forward);
    for (index_t i = 0; i < size; ++i) {
      const double g = at(gate, i), h = 1 / (1 + std::exp(-g));
      const double right_gate = at(dout, i) * at(up, i) * (h + g * h * (1 - h));
      const double right_up = at(dout, i) * g * h;
      // About ten roundings; near the derivative's zero its two terms cancel.
      const double scale = std::fabs(at(dout, i)) * (1 + std::fabs(g)) * h;
      CHECK(std::fabs(at(d_gate, i) - right_gate) <= 2e-6 * scale * std::fabs(at(up, i)) + 1e-30);
      CHECK(std::fabs(at(d_up, i) - right_up) <= 2e-6 * scale + 1e-30);
    }
  });
}
