// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Matrix products C = A B^T with packed B: register tiles, and epilogues that finish them.

#include <algorithm>
#include <concepts>

#include "ropewalk/linalg/packed_matrix.hpp"
#include "ropewalk/simd/floats.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Register tile of an instruction set: rows of A times vectors of 16 columns of B. Tiles are free
/// under the canonical arithmetic: every element is one fma chain, whatever its tile.
template <class Arch>
struct GemmTile {
  static constexpr std::size_t rows = 4;
  static constexpr std::size_t vectors = 1;
};
#if defined(__AVX2__) && defined(__FMA__)
template <>
struct GemmTile<simd::avx2> {  // 12 accumulators of 16 registers
  static constexpr std::size_t rows = 6;
  static constexpr std::size_t vectors = 1;
};
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
template <>
struct GemmTile<simd::avx512> {  // 24 accumulators of 32 registers
  static constexpr std::size_t rows = 6;
  static constexpr std::size_t vectors = 4;
};
#endif

/// Finishes 16 elements of a product, those of columns column .. column + 15: epilogue(row, column,
/// sums).
template <class E, class Arch>
concept GemmEpilogue = std::invocable<const E&, index_t, index_t, simd::Floats<Arch>>;

namespace detail {

/// First column of vector v of a tile.
constexpr index_t column_of(std::size_t v) { return simd::lanes * static_cast<index_t>(v); }

/// acc[r][v] = fma chain over k ascending of a[r * lda + k] * b[k * ldb + 16 v ..], from acc.
template <class Arch, std::size_t Rows, std::size_t Vectors>
[[gnu::always_inline]] inline void multiply_tile(const float* a, index_t lda, const float* b,
                                                 index_t ldb, index_t depth,
                                                 simd::Floats<Arch> (&acc)[Rows][Vectors]) {
  using V = simd::Floats<Arch>;
  for (index_t k = 0; k < depth; ++k) {
    V column[Vectors];
    simd::unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      column[v] = V::load(b + k * ldb + column_of(v));
    });
    simd::unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      const V x(a[static_cast<index_t>(r()) * lda + k]);
      simd::unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
        acc[r][v] = fma(x, column[v], acc[r][v]);
      });
    });
  }
}

template <class Arch, std::size_t Rows, std::size_t Vectors, class Epilogue>
void finish_tile(const float* a, index_t lda, const float* b, index_t ldb, index_t depth,
                 index_t row, index_t column, const Epilogue& epilogue) {
  simd::Floats<Arch> acc[Rows][Vectors];
  simd::unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    simd::unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      acc[r][v] = simd::Floats<Arch>(0.0f);
    });
  });
  multiply_tile<Arch, Rows, Vectors>(a + row * lda, lda, b, ldb, depth, acc);
  simd::unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    simd::unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      epilogue(row + static_cast<index_t>(r()), column + column_of(v), acc[r][v]);
    });
  });
}

}  // namespace detail

/// Visits the product of A (rows, depth) and one panel of packed B (depth, width; row stride
/// `width`, a multiple of 16): epilogue(row, column, sums) for 16 columns at a time, where column
/// counts from the panel's start and sums[i] is the fma chain over k ascending.
///
/// **Cost:** 2 * rows * depth * width flops; B is read rows / GemmTile::rows times.
template <class Arch, GemmEpilogue<Arch> Epilogue>
void multiply_panel(const float* a, index_t lda, index_t rows, const float* panel, index_t width,
                    index_t depth, const Epilogue& epilogue) {
  constexpr std::size_t R = GemmTile<Arch>::rows, N = GemmTile<Arch>::vectors;
  constexpr auto tile_rows = static_cast<index_t>(R);
  index_t column = 0;
  const auto sweep_rows = [&]<std::size_t Vectors>(std::integral_constant<std::size_t, Vectors>) {
    index_t row = 0;
    for (; row + tile_rows <= rows; row += tile_rows) {
      detail::finish_tile<Arch, R, Vectors>(a, lda, panel + column, width, depth, row, column,
                                            epilogue);
    }
    for (; row < rows; ++row) {
      detail::finish_tile<Arch, 1, Vectors>(a, lda, panel + column, width, depth, row, column,
                                            epilogue);
    }
    column += detail::column_of(Vectors);
  };
  while (column + detail::column_of(N) <= width) {
    sweep_rows(std::integral_constant<std::size_t, N>{});
  }
  while (column < width) sweep_rows(std::integral_constant<std::size_t, 1>{});
}

/// Visits A W^T panel by panel: epilogue(row, output, sums) for 16 outputs at a time. Outputs
/// beyond w.outputs() (padding to 16) arrive as zeros, so row strides of results are padded
/// likewise.
template <class Arch, GemmEpilogue<Arch> Epilogue>
void multiply_packed(const float* a, index_t lda, index_t rows, const PackedMatrix<float>& w,
                     const Epilogue& epilogue) {
  for (index_t j = 0; j < w.num_panels(); ++j) {
    multiply_panel<Arch>(
        a, lda, rows, w.panel(j), w.width_of_panel(j), w.inputs(),
        [&](index_t row, index_t column, simd::Floats<Arch> sums)
            __attribute__((always_inline)) { epilogue(row, j * panel_width + column, sums); });
  }
}

/// C = A W^T. a: (rows, w.inputs()), c: (rows, w.outputs() padded to 16).
template <class Arch>
void gemm(const float* a, index_t lda, index_t rows, const PackedMatrix<float>& w, float* c,
          index_t ldc) noexcept {
  multiply_packed<Arch>(
      a, lda, rows,
      w, [=](index_t r, index_t n, simd::Floats<Arch> sums) __attribute__((always_inline)) {
        sums.store(c + r * ldc + n);
      });
}

/// C += A W^T, the sum added after the last k: a residual connection.
template <class Arch>
void gemm_add(const float* a, index_t lda, index_t rows, const PackedMatrix<float>& w, float* c,
              index_t ldc) noexcept {
  multiply_packed<Arch>(
      a, lda, rows,
      w, [=](index_t r, index_t n, simd::Floats<Arch> sums) __attribute__((always_inline)) {
        float* out = c + r * ldc + n;
        (simd::Floats<Arch>::load(out) + sums).store(out);
      });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
