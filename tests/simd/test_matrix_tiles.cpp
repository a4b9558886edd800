// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

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

/// As simd/matrix_tiles.hpp says. a: (rows, depth), b: (depth, columns), row-major; c the sum
/// before.
float element(const std::vector<bf16>& a, const std::vector<bf16>& b, index_t depth,
              index_t columns, index_t r, index_t n, float c) {
  for (index_t k = 0; k < depth; k += 32) {
    float chain[2] = {0, 0};
    for (index_t i = k; i < depth && i < k + 32; ++i) {
      float& sum = chain[i % 2];
      sum = fma_flushed(to_float(a[static_cast<std::size_t>(r * depth + i)]),
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
    return element(a, b, depth, columns, r, n, before);
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
  // Blocks of changing shapes and places, each continued at once: what waits must be written first.
  const Matrices m(33, 48, 34);
  for_each_arch<SumsOfTiles>([&]<class Arch>() {
    simd::MatrixTiles<Arch> tiles;
    std::vector<bf16> b(static_cast<std::size_t>(m.depth * m.columns));
    for (index_t k = 0; k < m.depth; ++k) {
      for (index_t n = 0; n < m.columns; ++n) {
        b[static_cast<std::size_t>((k / 2 * m.columns + n) * 2 + k % 2)] =
            m.b[static_cast<std::size_t>(k * m.columns + n)];
      }
    }
    std::vector<float> c(static_cast<std::size_t>(m.rows * m.columns), 1.0f), d(c);
    const auto add = [&](index_t rows, index_t columns, bool continued, std::vector<float>& to) {
      tiles.multiply(m.a.data(), m.depth, rows, b.data(), m.columns, columns, m.depth, continued,
                     to.data(), m.columns);
    };
    add(33, 48, false, c);
    add(3, 16, true, c);
    add(3, 16, true, d);
    add(20, 32, true, c);
    add(20, 32, true, d);
    tiles.store();
    std::size_t wrong = 0;
    for (index_t r = 0; r < m.rows; ++r) {
      for (index_t n = 0; n < m.columns; ++n) {
        const bool small = r < 3 && n < 16, middle = r < 20 && n < 32;
        float x = m.sum(r, n, 0), y = 1;
        if (small) x = m.sum(r, n, x), y = m.sum(r, n, y);
        if (middle) x = m.sum(r, n, x), y = m.sum(r, n, y);
        const auto at = static_cast<std::size_t>(r * m.columns + n);
        wrong += c[at] != x;
        wrong += d[at] != y;
      }
    }
    CHECK(wrong == 0);
  });
}
