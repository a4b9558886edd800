// SPDX-License-Identifier: Apache-2.0
#include <cmath>
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

TEST_CASE("linalg/packed_matrix: packing is a bijection") {
  for (const index_t outputs : {1, 15, 16, 17, 63, 64, 65, 80, 130}) {
    for (const index_t inputs : {1, 7, 64}) {
      const auto w = normal_floats(outputs * inputs, 1);
      const PackedMatrix<float> packed = pack(w, outputs, inputs);
      CHECK(packed.storage_size() == round_up(outputs, 16) * inputs);
      std::vector<float> row(static_cast<std::size_t>(inputs));
      for (index_t n = 0; n < outputs; ++n) {
        packed.get_row(n, row);
        for (index_t k = 0; k < inputs; ++k) {
          REQUIRE(row[static_cast<std::size_t>(k)] == w[static_cast<std::size_t>(n * inputs + k)]);
          REQUIRE(packed(n, k) == w[static_cast<std::size_t>(n * inputs + k)]);
        }
      }
    }
  }
}

TEST_CASE("linalg/gemm: every element is one fma chain over k ascending, bit for bit") {
  for_each_arch([]<class Arch>() {
    for (const index_t rows : {0, 1, 2, 5, 6, 7, 13}) {
      for (const index_t outputs : {1, 16, 17, 48, 64, 65, 100, 129}) {
        for (const index_t depth : {1, 2, 3, 31}) {
          const index_t lda = depth + 3, ldc = round_up(outputs, 16) + 1;
          const auto a = normal_floats(rows * lda + 1, 1);
          const auto w = normal_floats(outputs * depth, 2);
          const auto start = normal_floats(rows * ldc + 1, 3);
          const PackedMatrix<float> packed = pack(w, outputs, depth);
          std::vector<float> c(start.size(), -7.0f), sum = start;
          gemm<Arch>(a.data(), lda, rows, packed, c.data(), ldc);
          gemm_add<Arch>(a.data(), lda, rows, packed, sum.data(), ldc);
          for (index_t r = 0; r < rows; ++r) {
            for (index_t n = 0; n < ldc; ++n) {
              const auto at = static_cast<std::size_t>(r * ldc + n);
              float chain = 0;
              if (n < outputs) {
                for (index_t k = 0; k < depth; ++k) {
                  chain = std::fma(a[static_cast<std::size_t>(r * lda + k)],
                                   w[static_cast<std::size_t>(n * depth + k)], chain);
                }
              }
              const bool padding = n >= round_up(outputs, 16);
              REQUIRE(c[at] == (padding ? -7.0f : chain));
              REQUIRE(sum[at] == (padding ? start[at] : start[at] + chain));
            }
          }
        }
      }
    }
  });
}

TEST_CASE("linalg/rows: rmsnorm agrees with the formula in double") {
  for_each_arch([]<class Arch>() {
    for (index_t size = 1; size <= 70; ++size) {
      const index_t ld = round_up(size, 16) + 16;
      auto x = normal_floats(3 * ld, static_cast<std::uint32_t>(size), 10);
      for (index_t i = 0; i < ld; ++i) x[static_cast<std::size_t>(2 * ld + i)] = 0;  // a zero row
      const auto weight = normal_floats(size, 99);
      std::vector<float> y(x.size(), 5.0f);
      rmsnorm<Arch>(x.data(), ld, 3, size, weight.data(), 1e-5, y.data(), ld);
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

TEST_CASE("linalg/rows: a row that overflows becomes NaN, not zeros") {
  for_each_arch([]<class Arch>() {
    const std::vector<float> x(32, 1e30f), weight(32, 1.0f);
    std::vector<float> y(32);
    rmsnorm<Arch>(x.data(), 32, 1, 32, weight.data(), 1e-5, y.data(), 32);
    for (const float v : y) CHECK(std::isnan(v));
  });
}

TEST_CASE("linalg/rows: swiglu agrees with the formula in double, zeros stay zero") {
  for_each_arch([]<class Arch>() {
    constexpr index_t size = 48, rows = 40;
    auto gate = normal_floats(rows * size, 1, 8);
    const auto up = normal_floats(rows * size, 2);
    for (std::size_t i = 0; i < 16; ++i) gate[i] = 0;
    gate[16] = -200.0f, gate[17] = 200.0f;
    const auto before = gate;
    swiglu<Arch>(gate.data(), up.data(), size, rows, size);
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double g = static_cast<double>(before[i]);
      const double exact = g / (1 + std::exp(-g)) * static_cast<double>(up[i]);
      // exp 2 ulp, then 1 +, /, *: at most 4 units of 2^-24 each way
      CHECK(std::fabs(static_cast<double>(gate[i]) - exact) <=
            8 * 0x1p-24 * std::fabs(exact) + 1e-34);
    }
  });
}
