// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/simd/matrix_tiles.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

constexpr float canary = -77.5f;

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

/// x y + z rounded once, subnormal operands and results as zeros.
float fma_flushed(float x, float y, float z) {
  return flushed(std::fma(flushed(x), flushed(y), flushed(z)));
}

/// As simd/matrix_tiles.hpp says. a: (rows, depth), row stride lda; b: (depth, columns), row-major;
/// c the sum before.
float element(const std::vector<bf16>& a, const std::vector<bf16>& b, index_t depth,
              index_t columns, index_t r, index_t n, float c, index_t lda) {
  for (index_t k = 0; k < depth; k += 32) {
    float chain[2] = {0, 0};
    for (index_t i = k; i < depth && i < k + 32; ++i) {
      float& sum = chain[i % 2];
      sum = fma_flushed(to_float(a[static_cast<std::size_t>(r * lda + i)]),
                        to_float(b[static_cast<std::size_t>(i * columns + n)]), sum);
    }
    c = flushed(c + flushed(chain[0] + chain[1]));
  }
  return c;
}

struct Matrices {
  index_t rows, columns, depth;
  std::vector<bf16> a, b;

  Matrices(index_t r, index_t n, index_t k, double scale = 1)
      : rows(r), columns(n), depth(k), a(rounded(r * k, 1, scale)), b(rounded(k * n, 2, scale)) {}
  static std::vector<bf16> rounded(index_t size, std::uint32_t seed, double scale) {
    std::vector<bf16> out;
    for (const float x : normal_floats(size, seed, scale)) out.push_back(to_bf16(x));
    return out;
  }
  float sum(index_t r, index_t n, float before) const {
    return element(a, b, depth, columns, r, n, before, depth);
  }
};

/// Elements that are not what they must be, and canaries that died. Operands end with their memory.
template <class Arch>
std::size_t wrong_elements(const Matrices& m, bool continued, index_t gap) {
  const index_t lda = m.depth + 2 * gap, ldb = m.columns + gap, ldc = m.columns + gap;
  const bf16 nan = to_bf16(std::numeric_limits<float>::quiet_NaN());
  std::vector<bf16> a(static_cast<std::size_t>(m.rows * lda - 2 * gap), nan);
  std::vector<bf16> b(static_cast<std::size_t>(m.depth / 2 * ldb * 2 - 2 * gap), nan);
  for (index_t r = 0; r < m.rows; ++r) {
    for (index_t k = 0; k < m.depth; ++k) {
      a[static_cast<std::size_t>(r * lda + k)] = m.a[static_cast<std::size_t>(r * m.depth + k)];
    }
  }
  for (index_t k = 0; k < m.depth; ++k) {
    for (index_t n = 0; n < m.columns; ++n) {
      b[static_cast<std::size_t>((k / 2 * ldb + n) * 2 + k % 2)] =
          m.b[static_cast<std::size_t>(k * m.columns + n)];
    }
  }
  std::vector<float> c(static_cast<std::size_t>(m.rows * ldc), canary);
  const auto before = [&](index_t r, index_t n) { return static_cast<float>(n - 3 * r) / 8; };
  for (index_t r = 0; continued && r < m.rows; ++r) {
    for (index_t n = 0; n < m.columns; ++n) c[static_cast<std::size_t>(r * ldc + n)] = before(r, n);
  }
  simd::MatrixTiles<Arch> tiles;
  index_t calls = 0;
  tiles.multiply(a.data(), lda, m.rows, b.data(), ldb, m.columns, m.depth, continued, c.data(), ldc,
                 [&] { ++calls; });
  tiles.store();
  std::size_t wrong = calls == 0;
  for (index_t r = 0; r < m.rows; ++r) {
    for (index_t n = 0; n < ldc; ++n) {
      const float expected = n < m.columns ? m.sum(r, n, continued ? before(r, n) : 0.0f) : canary;
      const float got = c[static_cast<std::size_t>(r * ldc + n)];
      // A sum of zeros may have either sign where subnormals were flushed.
      wrong += !(std::bit_cast<std::uint32_t>(got) == std::bit_cast<std::uint32_t>(expected) ||
                 (std::isnan(got) && std::isnan(expected)) || (got == 0 && expected == 0));
    }
  }
  return wrong;
}

void check(const Matrices& m) {
  CAPTURE(m.rows);
  CAPTURE(m.columns);
  CAPTURE(m.depth);
  for_each_arch<SumsOfTiles>([&]<class Arch>() {
    CHECK(wrong_elements<Arch>(m, false, 0) == 0);
    CHECK(wrong_elements<Arch>(m, true, 3) == 0);
  });
}

}  // namespace

TEST_CASE("simd/matrix_tiles: blocks of every shape are sums of groups of 32, bit for bit") {
  if (!simd::request_matrix_tiles()) {
    MESSAGE("skipped: the processor's own matrix tiles, which it or the system lacks");
  }
  for (index_t rows = 1; rows <= 33; ++rows) check(Matrices(rows, rows % 2 == 0 ? 32 : 16, 66));
  for (const index_t depth : {2, 4, 30, 32, 34, 62, 64, 96, 100, 256}) {
    for (const index_t columns : {16, 32, 48, 64}) check(Matrices(40, columns, depth));
  }
}

TEST_CASE("simd/matrix_tiles: subnormals are zeros; NaN, infinity and overflow pass through") {
  for (const double scale : {0x1p-64, 0x1p-66, 0x1p62, 0x1p64}) check(Matrices(17, 32, 70, scale));
  Matrices m(17, 32, 70);
  m.a[5 * 70 + 33] = to_bf16(std::numeric_limits<float>::quiet_NaN());
  m.a[9 * 70 + 2] = to_bf16(std::numeric_limits<float>::infinity());
  m.b[40 * 32 + 7] = to_bf16(-std::numeric_limits<float>::infinity());
  m.b[41 * 32 + 8] = to_bf16(0x1p-130f);
  check(m);
}

TEST_CASE("simd/matrix_tiles: sums wait in registers until the next block, wherever it is") {
  // Products of changing shapes, depths and places, many of them continued at once: what waits must
  // be written before it is read or its registers are shaped anew, and nowhere else.
  const Matrices m(64, 64, 66);
  std::vector<bf16> b(static_cast<std::size_t>(m.depth * m.columns));
  for (index_t k = 0; k < m.depth; ++k) {
    for (index_t n = 0; n < m.columns; ++n) {
      b[static_cast<std::size_t>((k / 2 * m.columns + n) * 2 + k % 2)] =
          m.b[static_cast<std::size_t>(k * m.columns + n)];
    }
  }
  constexpr index_t rows[] = {3, 20, 32, 64}, columns[] = {16, 32, 48, 64}, depths[] = {32, 64, 66};
  for_each_arch<SumsOfTiles>([&]<class Arch>() {
    simd::MatrixTiles<Arch> tiles;
    std::vector<float> sums[2], expected[2];
    for (int place = 0; place < 2; ++place) {
      sums[place].assign(static_cast<std::size_t>(m.rows * m.columns), canary);
      expected[place] = sums[place];
    }
    const Random random{.seed = 9};
    auto below = [&, draw = std::uint64_t{0}](std::size_t n) mutable {
      return static_cast<std::size_t>(random.uniform(draw++) * static_cast<double>(n));
    };
    std::size_t r = 0, n = 0, k = 0, place = 0;
    int wrong = 0;
    for (int step = 0; step < 400; ++step) {
      if (below(2) == 0) r = below(4);  // else as before: the same block again
      if (below(2) == 0) n = below(4);
      if (below(2) == 0) k = below(3);
      if (below(3) == 0) place = below(2);
      const bool continued = below(3) != 0;
      tiles.multiply(m.a.data(), m.depth, rows[r], b.data(), m.columns, columns[n], depths[k],
                     continued, sums[place].data(), m.columns);
      for (index_t i = 0; i < rows[r]; ++i) {
        for (index_t j = 0; j < columns[n]; ++j) {
          float& x = expected[place][static_cast<std::size_t>(i * m.columns + j)];
          x = element(m.a, m.b, depths[k], m.columns, i, j, continued ? x : 0.0f, m.depth);
        }
      }
      if (below(3) != 0) continue;
      tiles.store();
      for (int p = 0; p < 2; ++p) {
        wrong += sums[p] != expected[p];
        std::fill(sums[p].begin(), sums[p].end(), canary);
        expected[p] = sums[p];
      }
    }
    CHECK(wrong == 0);
  });
}
