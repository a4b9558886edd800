// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Matrix products C = A W^T with packed W, and the epilogues that finish them.

#include <algorithm>
#include <utility>

#include "ropewalk/linalg/panel_product.hpp"
#include "ropewalk/simd/math.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The epilogue of a whole product, for the panel that begins at `column` and the rows from `row`.
template <class Epilogue>
struct PanelEpilogue {
  Epilogue epilogue;
  index_t row, column;

  template <class Sums>
  requires std::invocable<const Epilogue&, index_t, index_t, Sums>
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

/// Writes rows of a product rounded to T, row stride ldc.
template <class Arch, class T>
struct StoreRounded {
  T* c;
  index_t ldc;

  [[gnu::always_inline]] void operator()(index_t row, index_t column,
                                         simd::Floats<Arch> sums) const {
    simd::store_rounded<Arch>(c + row * ldc + column, sums);
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

/// What the tiles of panel j ask for, as many lines as a panel has: the next panel, of the next
/// rows the first; or of weights that stay cached these rows, `next_rows` of them, in parts by the
/// last panels. Null: nothing.
template <class Arch, class T>
const T* read_after(const PackedMatrix<T>& w, index_t j, bool kept, const T* next_a, index_t lda,
                    index_t next_rows) {
  const index_t left = w.num_panels() - j;
  if (!kept) return left > 1 ? w.panel(j + 1) : next_rows > 0 ? w.panel(0) : nullptr;
  if (GemmTile<Arch>::fetches_rows || w.depth() > gemm_depth<T> || next_rows <= 0) return nullptr;
  const index_t part = w.depth() * panel_width;
  const index_t parts = (next_rows * lda + part - 1) / part;
  return left <= parts ? next_a + (parts - left) * part : nullptr;
}

}  // namespace detail

/// Visits A W^T: epilogue(row, output, sums) for 16 outputs at a time. Outputs beyond w.outputs()
/// (padding to 16) arrive as zeros, so row strides of results are padded likewise.
template <class Arch, class T, GemmEpilogue<Arch> Epilogue>
void multiply_packed(const T* a, index_t lda, index_t rows, const PackedMatrix<T>& w,
                     const Epilogue& epilogue) {
  PanelProduct<Arch, T> multiply_panel;
  const bool kept = detail::stay_cached<T>(w.storage_size(), rows);
  for (index_t first = 0; first < rows; first += rows_at_once<Arch, T>) {
    const index_t count = std::min(rows_at_once<Arch, T>, rows - first);
    const index_t next_rows = std::min(rows_at_once<Arch, T>, rows - first - count);
    const T* block = a + first * lda;
    for (index_t j = 0; j < w.num_panels(); ++j) {
      multiply_panel(block, lda, count, w.panel(j), w.width_of_panel(j), w.depth(),
                     PanelEpilogue<Epilogue>{epilogue, first, j * panel_width},
                     detail::read_after<Arch>(w, j, kept, block + count * lda, lda, next_rows));
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

namespace detail {

/// x[i] = silu(x[i]) for `size` floats, a multiple of 16: as many vectors together as the registers
/// hold.
template <class Arch>
[[gnu::noinline]] void silu_in_place(float* x, index_t size) noexcept {
  const auto some = [&]<std::size_t Vectors>(std::integral_constant<std::size_t, Vectors>)
      __attribute__((always_inline)) {
    for (; size >= column_of(Vectors); size -= column_of(Vectors), x += column_of(Vectors)) {
      simd::Floats<Arch> v[Vectors];
      ROPEWALK_UNROLL
      for (std::size_t i = 0; i < Vectors; ++i) v[i] = simd::Floats<Arch>::load(x + column_of(i));
      simd::silu(v);
      ROPEWALK_UNROLL
      for (std::size_t i = 0; i < Vectors; ++i) v[i].store(x + column_of(i));
    }
  };
  some(std::integral_constant<std::size_t, 2 * GemmTile<Arch>::vectors>{});
  some(std::integral_constant<std::size_t, 1>{});
}

}  // namespace detail

/// out = silu(A gate^T) * (A up^T), silu(g) = g / (1 + e^-g) (arXiv:2002.05202). Panels of the two
/// matrices take turns, so that the gate's products never leave the L1 cache.
/// a: (rows, gate.depth()); out: (rows, gate.outputs() padded to 16), rounded to T.
template <class Arch, class T>
void gemm_swiglu(const T* a, index_t lda, index_t rows, const PackedMatrix<T>& gate,
                 const PackedMatrix<T>& up, T* out, index_t ldo) noexcept {
  using V = simd::Floats<Arch>;
  alignas(storage_alignment) float panel[rows_at_once<Arch, T> * panel_width];
  float* const gated = panel;  // for lambdas that are copied
  PanelProduct<Arch, T> multiply_panel;
  const bool kept = detail::stay_cached<T>(gate.storage_size() + up.storage_size(), rows);
  for (index_t first = 0; first < rows; first += rows_at_once<Arch, T>) {
    const index_t count = std::min(rows_at_once<Arch, T>, rows - first);
    const T* block = a + first * lda;
    for (index_t j = 0; j < gate.num_panels(); ++j) {
      const index_t width = gate.width_of_panel(j);
      multiply_panel(
          block, lda, count, gate.panel(j), width, gate.depth(),
          [=](index_t row, index_t column, V sums)
              __attribute__((always_inline)) { sums.store(gated + row * width + column); },
          kept ? nullptr : up.panel(j));
      detail::silu_in_place<Arch>(gated, count * width);
      multiply_panel(
          block, lda, count, up.panel(j), width, up.depth(),
          [=](index_t row, index_t column, V sums) __attribute__((always_inline)) {
            const V g = V::load(gated + row * width + column);
            simd::store_rounded<Arch>(out + (first + row) * ldo + j * panel_width + column,
                                      g * sums);
          },
          !kept && j + 1 < gate.num_panels() ? gate.panel(j + 1) : nullptr);
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
