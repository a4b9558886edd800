// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "ropewalk/linalg/gemm_tn.hpp"

#include "linalg/gemm_problem.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

TEST_CASE("linalg/gemm_tn: every element continues its fma chain over tokens, bit for bit") {
  constexpr index_t most_rows = 13, most_depth = 600;
  const auto a = normal_floats(most_depth * most_rows, 1), b = normal_floats(most_depth * 129, 2);
  const auto a_at = [&](index_t k, index_t r) {
    return a[static_cast<std::size_t>(k * most_rows + r)];
  };
  const auto b_at = [&](index_t k, index_t n) { return b[static_cast<std::size_t>(k * 129 + n)]; };
  for_each_arch([&]<class Arch>() {
    for (const index_t columns : {1, 16, 17, 64, 65, 129}) {
      const index_t width = round_up(columns, lane_count), ldb = width + 5, ldc = width + 3;
      for (const index_t depth :
           {index_t{0}, index_t{1}, index_t{3}, index_t{255}, index_t{257}, most_depth}) {
        for (index_t rows = 0; rows <= most_rows; rows += depth > 3 ? 6 : 1) {
          // The last rows end their memory; what lies between rows is NaN.
          const index_t lda = rows + 2;
          Buffer<float> left(std::max<index_t>(depth * lda - 2, 0));
          Buffer<float> right(std::max<index_t>(depth * ldb - 5, 0));
          Buffer<float> c(std::max<index_t>(rows * ldc - 3, 0));
          for (index_t i = 0; i < left.size(); ++i) {
            left[i] =
                i % lda < rows ? a_at(i / lda, i % lda) : std::numeric_limits<float>::quiet_NaN();
          }
          for (index_t i = 0; i < right.size(); ++i) {
            const index_t n = i % ldb;
            right[i] = n < columns ? b_at(i / ldb, n)
                       : n < width ? 0.0f
                                   : std::numeric_limits<float>::quiet_NaN();
          }
          for (index_t i = 0; i < c.size(); ++i) c[i] = 0.125f * static_cast<float>(i % 37) - 2;
          gemm_tn<Arch>(left.data(), lda, right.data(), ldb, rows, columns, depth, c.data(), ldc);
          std::size_t wrong = 0;
          for (index_t i = 0; i < c.size(); ++i) {
            const index_t r = i / ldc, n = i % ldc;
            float sum = 0.125f * static_cast<float>(i % 37) - 2;
            for (index_t k = 0; n < columns && k < depth; ++k) {
              sum = std::fma(a_at(k, r), b_at(k, n), sum);
            }
            wrong += !same_bits(c[i], sum);
          }
          CAPTURE(rows);
          CAPTURE(columns);
          CAPTURE(depth);
          REQUIRE(wrong == 0);
        }
      }
    }
  });
}
