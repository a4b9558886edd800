// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/linalg/gemm.hpp"
#include "ropewalk/linalg/rows.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

PackedMatrix<float> pack(const std::vector<float>& w, index_t outputs, index_t inputs) {
  PackedMatrix<float> packed(outputs, inputs);
  for (index_t n = 0; n < outputs; ++n) {
    packed.set_row(n, {w.data() + n * inputs, static_cast<std::size_t>(inputs)});
  }
  return packed;
}

}  // namespace

TEST_CASE_TEMPLATE("linalg/packed_matrix: packing is a bijection", T, float, bf16) {
  for (const index_t outputs : {1, 15, 16, 17, 63, 64, 65, 80, 130}) {
    for (const index_t inputs : {1, 2, 7, 64, 65}) {
      // Distinct numbers of either type: an element in the wrong place shows.
      PackedMatrix<T> packed(outputs, inputs);
      const auto element = [&](index_t n, index_t k) {
        const index_t i = n * inputs + k + 1;
        if constexpr (std::is_same_v<T, float>) {
          return static_cast<float>(i);
        } else {
          return bf16{static_cast<std::uint16_t>(i)};
        }
      };
      const index_t depth = round_up(inputs, depth_group<T>);
      CHECK(packed.depth() == depth);
      REQUIRE(packed.storage_size() == round_up(outputs, 16) * depth);
      std::vector<T> row(static_cast<std::size_t>(inputs));
      for (index_t n = 0; n < outputs; ++n) {
        for (index_t k = 0; k < inputs; ++k) row[static_cast<std::size_t>(k)] = element(n, k);
        packed.set_row(n, row);
      }
      std::size_t wrong = 0;
      std::vector<float> as_floats(row.size());
      for (index_t n = 0; n < outputs; ++n) {
        packed.get_row(n, row);
        packed.get_row(n, std::span<float>(as_floats));
        for (index_t k = 0; k < inputs; ++k) {
          const auto at = static_cast<std::size_t>(k);
          wrong += !(row[at] == element(n, k)) || !(packed(n, k) == element(n, k));
          wrong += !(as_floats[at] == to_float(element(n, k)));
        }
      }
      // What the kernels read: panels of 64 outputs, padding as zeros.
      constexpr index_t group = depth_group<T>;
      index_t elements = 0;
      for (index_t j = 0; j < packed.num_panels(); ++j) {
        const index_t width = packed.width_of_panel(j);
        for (index_t i = 0; i < depth * width; ++i) {
          const index_t k = i / (width * group) * group + i % group;
          const index_t n = j * panel_width + i / group % width;
          const T expected = n < outputs && k < inputs ? element(n, k) : T{};
          wrong += !(packed.panel(j)[i] == expected);
        }
        elements += depth * width;
      }
      CHECK(elements == packed.storage_size());
      const PackedMatrix<T> turned = transposed(packed);
      CHECK(turned.outputs() == inputs);
      CHECK(turned.inputs() == outputs);
      for (index_t n = 0; n < outputs; ++n) {
        for (index_t k = 0; k < inputs; ++k) wrong += !(turned(k, n) == element(n, k));
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("linalg/rows: rmsnorm agrees with the formula in double") {
  for_each_arch([]<class Arch>() {
    for (index_t size = 1; size <= 70; ++size) {
      const index_t ld = round_up(size, 16) + 16;
      auto x = normal_floats(3 * ld, static_cast<std::uint32_t>(size), 10);
      for (index_t i = 0; i < ld; ++i) x[static_cast<std::size_t>(2 * ld + i)] = 0;  // a zero row
      const auto weight = normal_floats(size, 99);
      std::vector<float> y(x.size(), 5.0f);
      rmsnorm<Arch>(x.data(), ld, 3, size, weight.data(), 1e-5, 1.0f, y.data(), ld);
      for (index_t r = 0; r < 3; ++r) {
        double squares = 0;
        for (index_t i = 0; i < size; ++i) {
          const double v = static_cast<double>(x[static_cast<std::size_t>(r * ld + i)]);
          squares += v * v;
        }
        for (index_t i = 0; i < round_up(size, 16); ++i) {
          const auto at = static_cast<std::size_t>(r * ld + i);
          if (i >= size) {
            CHECK(y[at] == 0.0f);
            continue;
          }
          const double exact = static_cast<double>(x[at]) /
                               std::sqrt(squares / static_cast<double>(size) + 1e-5) *
                               static_cast<double>(weight[static_cast<std::size_t>(i)]);
          // Two products and the scale round once each, the sum of squares halves its own error.
          CHECK(std::fabs(static_cast<double>(y[at]) - exact) <= 4 * 0x1p-24 * std::fabs(exact));
        }
      }
    }
  });
}

TEST_CASE(
    "linalg/rows: rows of bf16 are the rounded rows of floats, with the factor and the padding") {
  for_each_arch([]<class Arch>() {
    for (const index_t size : {1, 15, 16, 17, 33, 64, 70}) {
      const index_t padded = round_up(size, 16), ld = padded + 3;
      const auto x = normal_floats(2 * size, static_cast<std::uint32_t>(size), 10);
      const auto weight = normal_floats(size, 99);
      std::vector<float> y(static_cast<std::size_t>(2 * ld), 5.0f);
      std::vector<bf16> z(y.size(), to_bf16(5.0f));
      rmsnorm<Arch>(x.data(), size, 2, size, weight.data(), 1e-5, 1.5f, y.data(), ld);
      rmsnorm<Arch>(x.data(), size, 2, size, weight.data(), 1e-5, 1.5f, z.data(), ld);
      std::vector<float> unscaled(y.size(), 5.0f);
      rmsnorm<Arch>(x.data(), size, 2, size, weight.data(), 1e-5, 1.0f, unscaled.data(), ld);
      for (std::size_t i = 0; i < y.size(); ++i) {
        CHECK(z[i] == simd::flushed_bf16(y[i]));
        const bool written = static_cast<index_t>(i) % ld < padded;
        CHECK(y[i] == (written ? unscaled[i] * 1.5f : 5.0f));
      }
    }
  });
}

TEST_CASE("linalg/rows: a row that overflows becomes NaN, not zeros") {
  for_each_arch([]<class Arch>() {
    const std::vector<float> x(32, 1e30f), weight(32, 1.0f);
    std::vector<float> y(32);
    rmsnorm<Arch>(x.data(), 32, 1, 32, weight.data(), 1e-5, 1.0f, y.data(), 32);
    for (const float v : y) CHECK(std::isnan(v));
  });
}

TEST_CASE("linalg/rows: rounded rows are to nearest even, zeros fill their last 16") {
  for_each_arch([&]<class Arch>() {
    for (const index_t size : {1, 2, 15, 16, 17, 33, 64}) {
      const index_t rows = 3, ldx = size + 1, padded = round_up(size, lane_count), ldy = padded + 2;
      auto x = normal_floats(rows * ldx - 1, 1);
      x.front() = 1 + 0x1p-8f;                            // a tie: to the even 1
      x[static_cast<std::size_t>(ldx)] = 1 + 0x3p-8f;     // a tie: up
      x[static_cast<std::size_t>(2 * ldx)] = -0x1p-130f;  // subnormal
      Buffer<bf16> y(rows * ldy - 2);
      for (bf16& v : y.span()) v = {0x1234};
      round_rows<Arch>(x.data(), ldx, rows, size, y.data(), ldy);
      index_t wrong = 0;
      for (index_t i = 0; i < y.size(); ++i) {
        const index_t r = i / ldy, k = i % ldy;
        const bf16 right = k < size     ? flushed_bf16(x[static_cast<std::size_t>(r * ldx + k)])
                           : k < padded ? bf16{}
                                        : bf16{0x1234};
        wrong += y[i] != right;
      }
      CHECK(wrong == 0);
      CHECK(to_float(y[0]) == 1);
      CHECK(to_float(y[ldy]) == 1 + 0x1p-6f);
      CHECK(to_float(y[2 * ldy]) == 0);
    }
  });
}

TEST_CASE("linalg/gemm: swiglu agrees with the formula in double, zeros stay zero") {
  for_each_arch([]<class Arch>() {
    // One input that is 1: the products are the weights themselves.
    constexpr index_t outputs = 150, stride = 160;
    auto gate = normal_floats(outputs, 1, 8);
    const auto up = normal_floats(outputs, 2);
    gate[5] = 0.0f, gate[16] = -200.0f, gate[17] = 200.0f, gate[149] = -3e38f;
    const PackedMatrix<float> g = pack(gate, outputs, 1), u = pack(up, outputs, 1);
    for (const index_t rows : {1, 7, 100}) {
      const std::vector<float> ones(static_cast<std::size_t>(rows), 1.0f);
      std::vector<float> out(static_cast<std::size_t>(rows * stride), 9.0f);
      gemm_swiglu<Arch>(ones.data(), 1, rows, g, u, out.data(), stride);
      for (index_t i = 0; i < rows * stride; ++i) {
        const index_t n = i % stride;
        const double got = static_cast<double>(out[static_cast<std::size_t>(i)]);
        if (n >= outputs) {
          CHECK(got == 0);
          continue;
        }
        const double x = static_cast<double>(gate[static_cast<std::size_t>(n)]);
        const double y = static_cast<double>(up[static_cast<std::size_t>(n)]);
        // exp 2 ulp, then 1 +, reciprocal, two products; below -80 the value at -80: -1.4e-33
        CHECK(std::fabs(got - x / (1 + std::exp(-x)) * y) <=
              8 * 0x1p-24 * std::fabs(x / (1 + std::exp(-x)) * y) + 2e-33 * std::fabs(y));
      }
    }
  });
}
