// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Matrix products C = A W^T with packed W, and the epilogues that finish them.

#include <algorithm>
#include <concepts>
#include <utility>

#include "ropewalk/linalg/tile.hpp"
#include "ropewalk/simd/math.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Finishes elements of a row of a product: epilogue(row, column, sums) for the 16 of columns
/// column .. column + 15, or for an array of as many vectors as a tile has, which follow each
/// other. May have fetch(row, column), which asks for the memory that those 16 will go to: it is
/// called before their sums are computed, so that no write waits for memory.
template <class E, class Arch>
concept GemmEpilogue = std::invocable<const E&, index_t, index_t, simd::Floats<Arch>> ||
                       std::invocable < const E&,
        index_t, index_t, simd::Floats<Arch>(&)
[GemmTile<Arch>::vectors] > ;

/// Rows of A that pass over a panel together: the panel is read from the L2 cache this often less,
/// and their partial sums fit on the stack.
inline constexpr index_t gemm_rows = 96;

/// Depth of a block of a product: 64 columns of it stay in the L2 cache beside the rows of A.
/// Longer sums are continued from block to block.
template <class T>
inline constexpr index_t gemm_depth = 512 * depth_group<T>;

namespace detail {

/// A tile of a block that is not the last along the depth: sums go to `partial` (row stride 64).
template <class Arch, class T, std::size_t Rows, std::size_t Vectors, class Fetch>
[[gnu::noinline]] void continue_tile(const T* a, index_t lda, const T* b, index_t ldb,
                                     index_t depth, const Fetch& fetch, float* partial,
                                     bool first) noexcept {
  Accumulators<Arch, Rows, Vectors> acc;
  if (first) {
    acc.clear();
  } else {
    acc.load(partial, panel_width);
  }
  multiply_tile<Arch, T>(a, lda, b, ldb, depth, fetch, acc);
  acc.store(partial, panel_width);
}

/// A tile of the last block: continued from `partial` unless that is null, then finished.
template <class Arch, class T, std::size_t Rows, std::size_t Vectors, class Fetch, class Epilogue>
[[gnu::noinline]] void finish_tile(const T* a, index_t lda, const T* b, index_t ldb, index_t depth,
                                   const Fetch& fetch, const float* partial, index_t row,
                                   index_t column, const Epilogue& given) noexcept {
  const Epilogue epilogue = given;  // a copy, which stores of floats cannot change
  Accumulators<Arch, Rows, Vectors> acc;
  if (partial == nullptr) {
    acc.clear();
  } else {
    acc.load(partial, panel_width);
  }
  if constexpr (requires { epilogue.fetch(row, column); }) {
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) {
        epilogue.fetch(row + static_cast<index_t>(r), column + column_of(v));
      }
    }
  }
  multiply_tile<Arch, T>(a, lda, b, ldb, depth, fetch, acc);
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    const index_t at = row + static_cast<index_t>(r);
    if constexpr (std::invocable<const Epilogue&, index_t, index_t, simd::Floats<Arch>>) {
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) {
        epilogue(at, column + column_of(v), acc.sum[r][v]);
      }
    } else {
      epilogue(at, column, acc.sum[r]);
    }
  }
}

/// One block of a product along its depth.
template <class T>
struct DepthBlock {
  const T* a;  ///< (rows, depth), row stride lda
  index_t lda;
  index_t rows;  ///< at most gemm_rows
  const T* b;    ///< (depth, width)
  index_t width;
  index_t depth;
  bool first, last;  ///< of the product's blocks
  const T* ahead;    ///< what is read next; or null, where the next rows of A are fetched instead
};

template <class Arch, class T, class Epilogue>
void multiply_block(const DepthBlock<T>& block, float* partial, const Epilogue& epilogue) {
  for_each_column_tile<Arch>(block.width, [&](auto vectors, index_t column) {
    constexpr std::size_t Vectors = vectors();
    const T* b = block.b + column * depth_group<T>;
    for_each_row_tile<Arch>(block.rows, [&](auto rows, index_t row) {
      constexpr std::size_t R = rows();
      const T* a = block.a + row * block.lda;
      float* sums = partial + row * panel_width + column;
      const auto multiply = [&](const auto& fetch) {
        if (block.last) {
          finish_tile<Arch, T, R, Vectors>(a, block.lda, b, block.width, block.depth, fetch,
                                           block.first ? nullptr : sums, row, column, epilogue);
        } else {
          continue_tile<Arch, T, R, Vectors>(a, block.lda, b, block.width, block.depth, fetch, sums,
                                             block.first);
        }
      };
      if (block.ahead != nullptr && column == 0) {
        const index_t tile = row / static_cast<index_t>(GemmTile<Arch>::rows);
        multiply(FetchLines{block.ahead + tile * fetched_elements<T>(block.depth)});
      } else {
        multiply(FetchRowsBelow<R>{a + index_t{R} * block.lda});
      }
    });
  });
}

}  // namespace detail

/// Visits the product of A (rows, depth) and one panel of packed B (PackedMatrix::panel):
/// epilogue(row, column, sums) for 16 columns at a time, where column counts from the panel's start
/// and sums[i] is the fma chain over k ascending (of bf16 pairs, the odd element first).
///
/// **Cost:** 2 * rows * depth * width flops.
/// \param rows at most gemm_rows \param depth a multiple of depth_group<T>
/// \param next what the caller will multiply with next, fetched meanwhile; or null where that is in
/// the L2 cache
template <class Arch, class T, GemmEpilogue<Arch> Epilogue>
void multiply_panel(const T* a, index_t lda, index_t rows, const T* panel, index_t width,
                    index_t depth, const Epilogue& epilogue, const T* next = nullptr) {
  using Element = simd::Multiplied<Arch, T>;
  alignas(storage_alignment) float partial[gemm_rows * panel_width];
  const simd::FlushSubnormals flush(std::is_same_v<T, bf16>);  // epilogues too, on every set
  if constexpr (std::is_same_v<Element, T>) {
    index_t k = 0;
    do {
      const index_t block = std::min(gemm_depth<T>, depth - k);
      const bool last = k + block == depth;
      detail::multiply_block<Arch>(
          detail::DepthBlock<T>{a + k, lda, rows, panel + k * width, width, block, k == 0, last,
                                width < panel_width ? nullptr
                                : last              ? next
                                                    : panel + (k + block) * width},
          partial, epilogue);
      k += block;
    } while (k < depth);
  } else {
    constexpr index_t most = gemm_depth<float> / 2;
    alignas(storage_alignment) float wide_a[static_cast<std::size_t>(gemm_rows * most)];
    alignas(storage_alignment) float wide_b[static_cast<std::size_t>(panel_width * most)];
    index_t k = 0;
    do {
      const index_t block = std::min(most, depth - k);
      for (index_t r = 0; r < rows; ++r) {
        simd::widen_swapped<Arch>(a + r * lda + k, block, wide_a + r * most);
      }
      simd::widen_panel<Arch>(panel + k * width, block / 2, width, wide_b);
      detail::multiply_block<Arch>(
          detail::DepthBlock<float>{wide_a, most, rows, wide_b, width, block, k == 0,
                                    k + block == depth, nullptr},
          partial, epilogue);
      k += block;
    } while (k < depth);
  }
}

/// The epilogue of a whole product, for the panel that begins at `column` and the rows from `row`.
template <class Epilogue>
struct PanelEpilogue {
  Epilogue epilogue;
  index_t row, column;

  template <class Sums>
  [[gnu::always_inline]] void operator()(index_t r, index_t c, Sums&& sums) const {
    epilogue(row + r, column + c, std::forward<Sums>(sums));
  }
  [[gnu::always_inline]] void fetch(index_t r, index_t c) const requires
      requires(const Epilogue& e) {
    e.fetch(r, c);
  }
  { epilogue.fetch(row + r, column + c); }
};

/// Writes rows of a product, row stride ldc.
struct StoreRows {
  float* c;
  index_t ldc;

  template <class V>
  [[gnu::always_inline]] void operator()(index_t row, index_t column, V sums) const {
    sums.store(c + row * ldc + column);
  }
  [[gnu::always_inline]] void fetch(index_t row, index_t column) const {
    __builtin_prefetch(c + row * ldc + column, 1, 3);
  }
};

/// Writes rows of a product added to those of r, as a residual connection does: the sum after the
/// last k. r and c have one row stride and may be the same.
struct AddRows {
  const float* r;
  float* c;
  index_t ldc;

  template <class V>
  [[gnu::always_inline]] void operator()(index_t row, index_t column, V sums) const {
    const index_t at = row * ldc + column;
    (V::load(r + at) + sums).store(c + at);
  }
  [[gnu::always_inline]] void fetch(index_t row, index_t column) const {
    __builtin_prefetch(c + row * ldc + column, 1, 3);
  }
};

namespace detail {

/// Whether weights of so many elements stay in the L2 cache while all rows pass over them: what is
/// fetched meanwhile are then rows of A.
template <class T>
constexpr bool stay_cached(index_t elements, index_t rows) {
  return rows > gemm_rows && elements * static_cast<index_t>(sizeof(T)) <= kept_bytes;
}

}  // namespace detail

/// Visits A W^T: epilogue(row, output, sums) for 16 outputs at a time. Outputs beyond w.outputs()
/// (padding to 16) arrive as zeros, so row strides of results are padded likewise.
template <class Arch, class T, GemmEpilogue<Arch> Epilogue>
void multiply_packed(const T* a, index_t lda, index_t rows, const PackedMatrix<T>& w,
                     const Epilogue& epilogue) {
  const bool kept = detail::stay_cached<T>(w.storage_size(), rows);
  for (index_t first = 0; first < rows; first += gemm_rows) {
    const index_t count = std::min(gemm_rows, rows - first);
    for (index_t j = 0; j < w.num_panels(); ++j) {
      const bool ends = j + 1 == w.num_panels();
      const T* next = kept                   ? nullptr
                      : !ends                ? w.panel(j + 1)
                      : first + count < rows ? w.panel(0)
                                             : nullptr;
      multiply_panel<Arch>(a + first * lda, lda, count, w.panel(j), w.width_of_panel(j), w.depth(),
                           PanelEpilogue<Epilogue>{epilogue, first, j * panel_width}, next);
    }
  }
}

/// C = A W^T. a: (rows, w.depth()), c: (rows, w.outputs() padded to 16).
template <class Arch, class T>
void gemm(const T* a, index_t lda, index_t rows, const PackedMatrix<T>& w, float* c,
          index_t ldc) noexcept {
  multiply_packed<Arch>(a, lda, rows, w, StoreRows{c, ldc});
}

/// C = R + A W^T, the sum added after the last k: a residual connection. r and c: row stride ldc,
/// may be the same.
template <class Arch, class T>
void gemm_add(const T* a, index_t lda, index_t rows, const PackedMatrix<T>& w, const float* r,
              float* c, index_t ldc) noexcept {
  multiply_packed<Arch>(a, lda, rows, w, AddRows{r, c, ldc});
}

/// out = silu(A gate^T) * (A up^T), silu(g) = g / (1 + e^-g) (arXiv:2002.05202). Panels of the two
/// matrices take turns, so that the gate's products never leave the L1 cache.
/// a: (rows, gate.depth()); out: (rows, gate.outputs() padded to 16), rounded to T.
template <class Arch, class T>
void gemm_swiglu(const T* a, index_t lda, index_t rows, const PackedMatrix<T>& gate,
                 const PackedMatrix<T>& up, T* out, index_t ldo) noexcept {
  using V = simd::Floats<Arch>;
  alignas(storage_alignment) float panel[gemm_rows * panel_width];
  float* const gated = panel;  // for lambdas that are copied
  const bool kept = detail::stay_cached<T>(gate.storage_size() + up.storage_size(), rows);
  for (index_t first = 0; first < rows; first += gemm_rows) {
    const index_t count = std::min(gemm_rows, rows - first);
    const T* block = a + first * lda;
    for (index_t j = 0; j < gate.num_panels(); ++j) {
      const index_t width = gate.width_of_panel(j);
      multiply_panel<Arch>(
          block, lda, count, gate.panel(j), width, gate.depth(),
          [=](index_t row, index_t column, V sums)
              __attribute__((always_inline)) { sums.store(gated + row * panel_width + column); },
          kept ? nullptr : up.panel(j));
      multiply_panel<Arch>(
          block, lda, count, up.panel(j), width, up.depth(),
          [=](index_t row, index_t column, V sums) __attribute__((always_inline)) {
            const V g = V::load(gated + row * panel_width + column);
            simd::store_rounded<Arch>(out + (first + row) * ldo + j * panel_width + column,
                                      simd::silu(g) * sums);
          },
          !kept && j + 1 < gate.num_panels() ? gate.panel(j + 1) : nullptr);
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
