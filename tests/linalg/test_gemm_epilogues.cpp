// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/linalg/gemm.hpp"

#include "linalg/gemm_problem.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

namespace {

constexpr float canary = -77.5f;

/// silu as the kernels compute it, which tests/simd/test_math.cpp compares with the formula.
float silu_of(float x) {
  float out[simd::lanes];
  simd::silu(simd::Floats<simd::portable>(x)).store(out);
  return out[0];
}

template <class T, class Sums = SumsOfPairs>
void check_swiglu() {
  const GemmProblem<T> p(100, 300, 69);  // gate: outputs 0 .. 149, up: 150 .. 299
  const index_t depth = p.depth;
  GemmProblem<T> upper = p;
  upper.w.erase(upper.w.begin(), upper.w.begin() + 150 * depth);
  for_each_arch<Sums>([&]<class Arch>() {
    for (const index_t outputs : {1, 16, 65, 129, 150}) {
      const PackedMatrix<T> gate = p.packed(outputs, depth), up = upper.packed(outputs, depth);
      const index_t padded = round_up(outputs, lane_count), ldo = padded + 2;
      for (const index_t rows : {0, 1, 7, 97}) {
        if (rows == 97 && outputs < 129) continue;
        const LeftOperand<T> a(p, rows, depth, 2, 4);
        const index_t size = std::max<index_t>(rows * ldo - 2, 0);
        Buffer<T> out(size);
        for (T& x : out.span()) x = simd::rounded_to<T>(canary);
        gemm_swiglu<Arch>(a.data(), a.ld, rows, gate, up, out.data(), ldo);
        std::size_t wrong = 0;
        for (index_t i = 0; i < size; ++i) {
          const index_t r = i / ldo, n = i % ldo;
          float expected = n < padded ? 0.0f : canary;
          if (n < outputs) {
            expected = silu_of(sum_of<T, Sums>(p.row(r), p.output(n), depth)) *
                       sum_of<T, Sums>(p.row(r), upper.output(n), depth);
          }
          wrong += !same_bits(out[i], simd::rounded_to<T>(expected));
        }
        CAPTURE(outputs);
        CAPTURE(rows);
        CHECK(wrong == 0);
      }
    }
  });
}

template <class Sums>
void check_panels() {
  const GemmProblem<bf16> p(96, 64, 34);
  const LeftOperand<bf16> a(p, p.rows, p.depth, 0, 0);
  for_each_arch<Sums>([&]<class Arch>() {
    for (const index_t outputs : {16, 32, 48, 64}) {
      const PackedMatrix<bf16> w = p.packed(outputs, p.depth);
      for (const bf16* next : {static_cast<const bf16*>(nullptr), w.panel(0)}) {
        std::vector<int> visits(static_cast<std::size_t>(p.rows * outputs));
        std::size_t wrong = 0;
        PanelProduct<Arch, bf16> multiply_panel;
        multiply_panel(
            a.data(), a.ld, p.rows, w.panel(0), outputs, p.depth,
            [&](index_t row, index_t column, simd::Floats<Arch> sums) {
              float values[simd::lanes];
              sums.store(values);
              for (index_t i = 0; i < simd::lanes; ++i) {
                ++visits[static_cast<std::size_t>(row * outputs + column + i)];
                wrong += !same_bits(values[i],
                                    sum_of<bf16, Sums>(p.row(row), p.output(column + i), p.depth));
              }
            },
            next);
        CHECK(wrong == 0);
        CHECK(std::count(visits.begin(), visits.end(), 1) == p.rows * outputs);
      }
    }
  });
}

}  // namespace

TEST_CASE("linalg/gemm: swiglu is silu of one product times the other, in whole rows of 16") {
  check_swiglu<float>();
  check_swiglu<bf16>();
  check_swiglu<bf16, SumsOfTiles>();
}

TEST_CASE("linalg/gemm: panels of every width, with or without what is read next") {
  check_panels<SumsOfPairs>();
  check_panels<SumsOfTiles>();
}

#if defined(__SSE__)
TEST_CASE("linalg/gemm: products of pairs leave the caller's floating-point control as it was") {
  const unsigned before = _mm_getcsr() & ~0x3fu;
  for_each_arch([&]<class Arch>() {
    const bf16 row[2] = {};
    const PackedMatrix<bf16> w(1, 2);
    bf16 out[lane_count];
    gemm_swiglu<Arch>(row, 2, 1, w, w, out, lane_count);
    CHECK((_mm_getcsr() & ~0x3fu) == before);  // but for the flags of what happened
  });
}
#endif
