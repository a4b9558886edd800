// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/linalg/gemm.hpp"

#include "linalg/gemm_problem.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

namespace {

constexpr float canary = -77.5f;
constexpr index_t most_rows = 200;
constexpr index_t most_outputs = 129;
// Both sides of blocks of the depth: 512 floats, 256 widened pairs, 1024 numbers in pairs, 256 in
// tiles, whose groups are 32.
constexpr index_t depths[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 32, 33, 64, 257, 512, 513, 1030};

/// The sums of all rows and outputs, up to each of `depths`.
template <class T, class Sums>
class Chains {
 public:
  explicit Chains(const GemmProblem<T>& p) : sums_(std::size(depths)) {
    for (std::size_t d = 0; d < sums_.size(); ++d) {
      for (index_t r = 0; r < most_rows; ++r) {
        for (index_t n = 0; n < most_outputs; ++n) {
          sums_[d].push_back(sum_of<T, Sums>(p.row(r), p.output(n), depths[d]));
        }
      }
    }
  }
  float at(std::size_t d, index_t r, index_t n) const {
    return sums_[d][static_cast<std::size_t>(r * most_outputs + n)];
  }

 private:
  std::vector<std::vector<float>> sums_;
};

/// Elements of C = A W^T, or of C += A W^T, that are not what they must be, and canaries that died.
template <class Arch, class T, class Sums>
std::size_t wrong_elements(const Chains<T, Sums>& chains, std::size_t d, const LeftOperand<T>& a,
                           index_t rows, const PackedMatrix<T>& w, bool add) {
  const index_t padded = round_up(w.outputs(), lane_count), ldc = padded + 3;
  const index_t size = std::max<index_t>(rows * ldc - 3, 0);  // the last row ends the memory
  Buffer<float> c(size);
  const auto before = [&](index_t r, index_t n) {
    return add && n < padded ? 0.25f * static_cast<float>(n - 5 * r) : canary;
  };
  for (index_t i = 0; i < size; ++i) c[i] = before(i / ldc, i % ldc);
  if (add) {
    gemm_add<Arch>(a.data(), a.ld, rows, w, c.data(), c.data(), ldc);
  } else {
    gemm<Arch>(a.data(), a.ld, rows, w, c.data(), ldc);
  }
  std::size_t wrong = 0;
  for (index_t i = 0; i < size; ++i) {
    const index_t r = i / ldc, n = i % ldc;
    float expected = canary;
    if (n < padded) {
      const float sum = n < w.outputs() ? chains.at(d, r, n) : 0.0f;
      expected = add ? before(r, n) + sum : sum;
    }
    wrong += !same_bits(c[i], expected);
  }
  return wrong;
}

template <class T, class Sums = SumsOfPairs>
void check_all_sizes() {
  const GemmProblem<T> p(most_rows, most_outputs, 1030);
  const Chains<T, Sums> chains(p);
  for_each_arch<Sums>([&]<class Arch>() {
    index_t shift = 0;  // 0 .. 15 elements past a cache line; whole pairs
    for (std::size_t d = 0; d < std::size(depths); ++d) {
      const index_t depth = depths[d];
      for (const index_t outputs : {1, 15, 16, 17, 32, 33, 48, 63, 64, 65, 80, 127, 128, 129}) {
        if (depth > 64 && outputs != 17 && outputs != 129) continue;
        const PackedMatrix<T> w = p.packed(outputs, depth);
        std::vector<index_t> row_counts{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};
        if (outputs == 129 && (depth == 7 || depth == 512 || depth == 1030)) {
          row_counts = {5, 96, 97, most_rows};
        } else if (depth > 64) {
          row_counts = {3, 6, 13};
        }
        for (const index_t rows : row_counts) {
          shift = (shift + depth_group<T>) % 16;
          const LeftOperand<T> a(p, rows, depth, shift, shift % 4 * depth_group<T>);
          CAPTURE(rows);
          CAPTURE(outputs);
          CAPTURE(depth);
          REQUIRE(wrong_elements<Arch>(chains, d, a, rows, w, false) == 0);
          if (rows % 3 == 1) REQUIRE(wrong_elements<Arch>(chains, d, a, rows, w, true) == 0);
        }
      }
    }
  });
}

/// Small integers: every order of summation gives the exact sum, and any other is wrong.
template <class T, class Sums = SumsOfPairs>
void check_integers() {
  GemmProblem<T> p(13, 80, 1030);
  for (std::size_t i = 0; i < p.a.size(); ++i) p.a[i] = static_cast<float>(i * 7 % 17) - 8;
  for (std::size_t i = 0; i < p.w.size(); ++i) p.w[i] = static_cast<float>(i * 5 % 13) - 6;
  const PackedMatrix<T> w = p.packed();
  const LeftOperand<T> a(p, p.rows, p.depth, 2, 0);
  for_each_arch<Sums>([&]<class Arch>() {
    Buffer<float> c(p.rows * p.outputs);
    gemm<Arch>(a.data(), a.ld, p.rows, w, c.data(), p.outputs);
    for (index_t r = 0; r < p.rows; ++r) {
      for (index_t n = 0; n < p.outputs; ++n) {
        long sum = 0;
        for (index_t k = 0; k < p.depth; ++k) {
          sum += static_cast<long>(p.row(r)[k]) * static_cast<long>(p.output(n)[k]);
        }
        REQUIRE(c[r * p.outputs + n] == static_cast<float>(sum));
      }
    }
  });
}

template <class T, class Sums = SumsOfPairs>
void check_non_finite() {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const index_t depth : {7, 1030}) {
    for (const index_t where : {index_t{0}, index_t{5}, depth - 1}) {
      GemmProblem<T> p(8, 70, depth);
      p.a[static_cast<std::size_t>(3 * depth + where)] = nan;
      p.a[static_cast<std::size_t>(6 * depth + where)] = -infinity;
      p.w[static_cast<std::size_t>(66 * depth + where)] = nan;
      p.w[static_cast<std::size_t>(20 * depth + where)] = infinity;
      p.w[static_cast<std::size_t>(30 * depth + where)] = 0;  // infinity * 0
      const PackedMatrix<T> w = p.packed();
      const LeftOperand<T> a(p, p.rows, depth, 0, 2);
      for_each_arch<Sums>([&]<class Arch>() {
        Buffer<float> c(p.rows * 80);
        gemm<Arch>(a.data(), a.ld, p.rows, w, c.data(), 80);
        std::size_t wrong = 0;
        for (index_t r = 0; r < p.rows; ++r) {
          for (index_t n = 0; n < 80; ++n) {
            const float got = c[r * 80 + n];
            const float x = p.row(r)[where], y = n < 70 ? p.output(n)[where] : 0.0f;
            // Padding columns are zeros times what A holds, which may not be finite.
            const float product = x * y;
            const bool right = std::isnan(product)   ? std::isnan(got)
                               : std::isinf(product) ? got == product
                                                     : std::isfinite(got);
            wrong += !right;
          }
        }
        CHECK(wrong == 0);
      });
    }
  }
}

}  // namespace

TEST_CASE("linalg/gemm: floats of all sizes and alignments are fma chains, bit for bit") {
  check_all_sizes<float>();
}
TEST_CASE("linalg/gemm: bf16 of all sizes and alignments are fma chains of pairs, bit for bit") {
  check_all_sizes<bf16>();
}
TEST_CASE("linalg/gemm: bf16 by matrix tiles are sums of groups of 32, bit for bit") {
  check_all_sizes<bf16, SumsOfTiles>();
}
TEST_CASE("linalg/gemm: products of integers are exact") {
  check_integers<float>();
  check_integers<bf16>();
  check_integers<bf16, SumsOfTiles>();
}
TEST_CASE("linalg/gemm: NaN and infinity reach the elements whose sums hold them, no others") {
  check_non_finite<float>();
  check_non_finite<bf16>();
  check_non_finite<bf16, SumsOfTiles>();
}
TEST_CASE("linalg/gemm: sums of pairs flush subnormal operands and results, those of floats none") {
  // Rows of A times one output of W: each pair is (a0, a1) x (b0, b1).
  struct Case {
    float a0, a1, b0, b1, sum;
  };
  const Case cases[] = {
      {0x1p-70f, 0, 0x1p-70f, 0, 0.0f},                 // a subnormal product
      {0x1p-63f, 0x1p-63f, 0x1p-64f, 0x1p-64f, 0.0f},   // two halves of a normal one: each zero
      {0x1p-63f, 0x1p-62f, -0x1p-64f, 0x1p-64f, 0.0f},  // 2^-126 less its half is subnormal
      {0x1p-130f, 0, 0x1p100f, 0, 0.0f},                // a subnormal operand of A
      {0x1p100f, 0, 0x1p-130f, 0, 0.0f},                // and of W
      {0x1p-63f, 0x1p-61f, 0x1p-64f, 0x1p-64f, 1.25f * 0x1p-125f},  // normal throughout
      {0x1p-70f, 1, 0x1p-70f, 0x1p-126f, 0x1.0004p-126f},  // a tiny product is not one alone
  };
  constexpr auto count = static_cast<index_t>(std::size(cases));
  for_each_arch([&]<class Arch>() {
    for (index_t i = 0; i < count; ++i) {
      const Case& c = cases[i];
      const bf16 row[2] = {to_bf16(c.a0), to_bf16(c.a1)};
      const bf16 column[2] = {to_bf16(c.b0), to_bf16(c.b1)};
      PackedMatrix<bf16> w(1, 2);
      w.set_row(0, column);
      float got[lane_count];
      gemm<Arch>(row, 2, 1, w, got, lane_count);
      CHECK(got[0] == c.sum);

      const float floats[2] = {c.a0, c.a1}, weights[2] = {c.b0, c.b1};
      PackedMatrix<float> exact(1, 2);
      exact.set_row(0, weights);
      gemm<Arch>(floats, 2, 1, exact, got, lane_count);
      CHECK(got[0] == std::fma(c.a1, c.b1, c.a0 * c.b0));
    }
  });
}
