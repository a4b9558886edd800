// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Gradients of packed weight matrices, the transposes that carry gradients back through them, and
/// copies of weights as products of bf16 take them.

#include <algorithm>
#include <type_traits>

#include "ropewalk/linalg/gemm_tn.hpp"
#include "ropewalk/simd/transpose.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Panels that a task of add_weight_gradient() had best take: they share what is read of x. Free.
inline constexpr index_t gradient_panels = 2;

namespace detail {

/// Tokens of a block of a product over tokens: 64 columns of it are 16 KiB. Free: sums go on.
inline constexpr index_t gradient_tokens = 64;

/// Tokens and columns that are put side by side in pairs at a time. Free: sums go on.
inline constexpr index_t paired_tokens = 256, paired_columns = gemm_rows;

/// Rows of x as products over tokens take them for operands of bf16 (simd::pair_rows), an odd last
/// row beside zeros. x: (tokens, columns), row stride ldx; out: row stride ldo elements or pairs,
/// columns padded to 16.
template <class Arch, class X, class Element>
void pair_tokens(const X* x, index_t ldx, index_t tokens, index_t columns, Element* out,
                 index_t ldo) noexcept {
  constexpr index_t group = depth_group<Element>;
  static constexpr X nothing[paired_columns] = {};
  for (index_t t = 0; t < tokens; t += 2) {
    const X* even = x + t * ldx;
    const X* odd = t + 1 < tokens ? even + ldx : nothing;
    auto* to = out + t * ldo;
    index_t c = 0;
    for (; c + simd::lanes <= columns; c += simd::lanes) {
      simd::pair_rows<Arch>(even + c, odd + c, to + c * group, ldo);
    }
    if (c == columns) continue;
    X ends[2][simd::lanes] = {};
    std::copy_n(even + c, columns - c, ends[0]);
    std::copy_n(odd + c, columns - c, ends[1]);
    simd::pair_rows<Arch>(ends[0], ends[1], to + c * group, ldo);
  }
}

/// add_weight_gradient() of bf16 operands, for up to gradient_panels panels.
template <class Arch>
void add_paired_gradient(const bf16* x, index_t ldx, const float* dy, index_t lddy, index_t tokens,
                         PackedMatrix<float>& gradient, Interval panels) noexcept {
  using Element = simd::Multiplied<Arch, bf16>;
  constexpr index_t group = depth_group<Element>;
  constexpr index_t most = group == 2 ? paired_tokens : gradient_tokens;
  static_assert(most % 2 == 0 && group <= 2);
  alignas(storage_alignment) Element left[static_cast<std::size_t>(most * paired_columns)];
  alignas(storage_alignment)
      Element right[gradient_panels][static_cast<std::size_t>(most * panel_width)];
  const simd::FlushSubnormals flush(true);  // as the dot product of pairs does
  for (index_t first = 0; first < tokens; first += most) {
    const index_t count = std::min(most, tokens - first);
    const index_t next_rows = std::min(most, tokens - first - count);
    const bf16* const next_x = x + (first + count) * ldx;
    const float* const next_dy = dy + (first + count) * lddy;
    for (index_t j = 0; j < panels.size(); ++j) {
      pair_tokens<Arch>(dy + first * lddy + j * panel_width, lddy, count,
                        gradient.width_of_panel(panels.begin + j), right[j], panel_width);
    }
    for (index_t k = 0; k < gradient.inputs(); k += paired_columns) {
      const index_t rows = std::min(paired_columns, gradient.inputs() - k);
      pair_tokens<Arch>(x + first * ldx + k, ldx, count, rows, left, paired_columns);
      for (index_t j = 0; j < panels.size(); ++j) {
        const index_t width = gradient.width_of_panel(panels.begin + j);
        // The next block's rows, in as many parts as there are products of this one.
        const index_t part = k / paired_columns,
                      parts = (gradient.inputs() - 1) / paired_columns + 1;
        const index_t lines = next_rows * ldx / (2 * lane_count) / (parts * panels.size());
        const index_t part_rows = (next_rows + parts - 1) / parts;
        const NextRows next{.a = next_x + (part * panels.size() + j) * lines * 2 * lane_count,
                            .a_lines = lines,
                            .b = next_dy + part * part_rows * lddy + j * panel_width,
                            .ldb = lddy,
                            .b_rows = part_rows};
        gemm_tn<Arch>(left, paired_columns, right[j], panel_width, rows, width, round_up(count, 2),
                      gradient.panel(panels.begin + j) + k * width, width, next);
      }
    }
  }
}

/// add_weight_gradient() of bf16 operands by matrix tiles, for up to gradient_panels panels.
template <class Arch>
void add_tiled_gradient(const bf16* x, index_t ldx, const float* dy, index_t lddy, index_t tokens,
                        PackedMatrix<float>& gradient, Interval panels) noexcept {
  constexpr index_t most = paired_tokens, half = most / 2, side = simd::tile_side;
  constexpr index_t ldl = most + simd::tile_depth;  // rows that begin in different sets
  alignas(storage_alignment) bf16 right[gradient_panels][most * panel_width];  // dy in pairs
  alignas(storage_alignment) bf16 pairs[half * paired_columns * 2];            // x in pairs
  alignas(storage_alignment) bf16 left[paired_columns * ldl];                  // x^T
  struct Pair {
    bf16 even, odd;
  };
  const simd::FlushSubnormals flush(true);
  simd::MatrixTiles<Arch> tiles;
  for (index_t first = 0; first < tokens; first += most) {
    const index_t count = std::min(most, tokens - first);
    const index_t padded = round_up(count, simd::tile_depth);
    for (index_t j = 0; j < panels.size(); ++j) {
      const index_t width = gradient.width_of_panel(panels.begin + j);
      pair_tokens<Arch>(dy + first * lddy + j * panel_width, lddy, count, width, right[j], width);
      std::fill(right[j] + round_up(count, 2) * width, right[j] + padded * width, bf16{});
    }
    for (index_t k = 0; k < gradient.inputs(); k += paired_columns) {
      const index_t rows = std::min(paired_columns, gradient.inputs() - k);
      pair_tokens<Arch>(x + first * ldx + k, ldx, count, rows, pairs, paired_columns);
      std::fill(pairs + round_up(count, 2) * paired_columns, pairs + padded * paired_columns,
                bf16{});
      for (index_t t = 0; t < padded / 2; t += side) {
        for (index_t r = 0; r < rows; r += side) {
          simd::transpose_16x16<Arch>(reinterpret_cast<const Pair*>(pairs) + t * paired_columns + r,
                                      paired_columns, reinterpret_cast<Pair*>(left + r * ldl) + t,
                                      ldl / 2);
        }
      }
      for (index_t j = 0; j < panels.size(); ++j) {
        const index_t width = gradient.width_of_panel(panels.begin + j);
        tiles.multiply(left, ldl, rows, right[j], width, width, padded, true,
                       gradient.panel(panels.begin + j) + k * width, width);
      }
      tiles.store();
    }
  }
}

}  // namespace detail

/// Tokens that sums over tokens take together, for operands stored as T: a sum that is continued
/// from call to call has the same bits wherever it is cut at a multiple of them.
template <class Arch, class T>
inline constexpr index_t token_group =
    simd::takes_matrix_tiles<Arch, T> ? simd::tile_depth : depth_group<T>;

/// dW += dY^T X for the outputs of some panels of W, where Y = X W^T: each element an fma chain
/// over tokens ascending, continued from call to call; for bf16, to which dy is rounded, over pairs
/// of tokens, the odd one first, that start with each call (an odd last token is paired with
/// zeros); by matrix tiles over groups of 32 tokens that start with each call (the last one is
/// filled with zeros; simd/matrix_tiles.hpp). The gradient has W's packed order, in which a panel
/// is the plain matrix (inputs, outputs of the panel). \param x (tokens, inputs), row stride ldx
/// \param dy (tokens, outputs of the panels padded to 16, padding zero), row stride lddy
template <class Arch, class T>
void add_weight_gradient(const T* x, index_t ldx, const float* dy, index_t lddy, index_t tokens,
                         PackedMatrix<float>& gradient, Interval panels) noexcept {
  if constexpr (std::is_same_v<T, bf16>) {
    constexpr index_t some_columns = gradient_panels * panel_width;
    for (index_t j = panels.begin; j < panels.end; j += gradient_panels, dy += some_columns) {
      const Interval some{j, std::min(panels.end, j + gradient_panels)};
      if constexpr (simd::takes_matrix_tiles<Arch, T>) {
        detail::add_tiled_gradient<Arch>(x, ldx, dy, lddy, tokens, gradient, some);
      } else {
        detail::add_paired_gradient<Arch>(x, ldx, dy, lddy, tokens, gradient, some);
      }
    }
  } else {
    // All panels read a block of tokens before the next one, which is fetched meanwhile, by each
    // panel a part of x and its own columns of dy.
    for (index_t first = 0; first < tokens; first += detail::gradient_tokens) {
      const index_t count = std::min(detail::gradient_tokens, tokens - first);
      const index_t rows = std::min(detail::gradient_tokens, tokens - first - count);
      const index_t lines = rows * ldx / lane_count / panels.size();
      for (index_t j = 0; j < panels.size(); ++j) {
        const index_t width = gradient.width_of_panel(panels.begin + j);
        const float* const from = dy + first * lddy + j * panel_width;
        NextRows next;
        if (rows > 0) {
          next = {.a = x + (first + count) * ldx + j * lines * lane_count,
                  .a_lines = lines,
                  .b = from + count * lddy,
                  .ldb = lddy,
                  .b_rows = rows};
        }
        gemm_tn<Arch>(x + first * ldx, ldx, from, lddy, gradient.inputs(), width, count,
                      gradient.panel(panels.begin + j), width, next);
      }
    }
  }
}

/// C += A W^T over the inputs [inputs.begin, inputs.end) of W alone; inputs.begin a multiple of
/// depth_group<T>. a: (rows, inputs.size() padded to depth_group<T>, padding zero).
template <class Arch, class T>
void gemm_add_inputs(const T* a, index_t lda, index_t rows, const PackedMatrix<T>& w,
                     Interval inputs, float* c, index_t ldc) noexcept {
  const AddRows add{c, c, ldc};
  PanelProduct<Arch, T> multiply_panel;
  for (index_t first = 0; first < rows; first += rows_at_once<Arch, T>) {
    const index_t count = std::min(rows_at_once<Arch, T>, rows - first);
    for (index_t j = 0; j < w.num_panels(); ++j) {
      const index_t width = w.width_of_panel(j);
      multiply_panel(a + first * lda, lda, count, w.panel(j) + inputs.begin * width, width,
                     round_up(inputs.size(), depth_group<T>),
                     PanelEpilogue<AddRows>{add, first, j * panel_width});
    }
  }
}

/// Writes panel `panel` of `w` rounded to bf16. out: of w's shape.
template <class Arch>
void round_panel(const PackedMatrix<float>& w, PackedMatrix<bf16>& out, index_t panel) noexcept {
  using V = simd::Floats<Arch>;
  const index_t width = w.width_of_panel(panel);
  const float* from = w.panel(panel);
  bf16* to = out.panel(panel);
  for (index_t k = 0; k < w.inputs(); k += 2) {
    for (index_t n = 0; n < width; n += simd::lanes) {
      const float* pair = from + k * width + n;
      simd::store_woven<Arch>(to + k * width + 2 * n, V::load(pair),
                              k + 1 < w.inputs() ? V::load(pair + width) : V(0.0f));
    }
  }
}

namespace detail {

/// The 16 inputs by 16 outputs, or pairs of outputs, of a panel of the transpose.
template <class Arch>
void transpose_block(const float* from, index_t width, float* to, index_t to_width) noexcept {
  simd::transpose_16x16<Arch>(from, width, to, to_width);
}
template <class Arch>
void transpose_block(const float* from, index_t width, bf16* to, index_t to_width) noexcept {
  using V = simd::Floats<Arch>;
  constexpr index_t outputs = 2 * simd::lanes;
  alignas(storage_alignment) bf16 rounded[simd::lanes * outputs];
  for (index_t k = 0; k < simd::lanes; ++k, from += width) {
    simd::store_bf16<Arch>(rounded + k * outputs, V::load(from), V::load(from + simd::lanes));
  }
  simd::transpose_16x16_pairs<Arch>(rounded, outputs, to, 2 * to_width);
}

}  // namespace detail

/// Writes panel `panel` of the transpose of `w`, rounded to T. out: (w.inputs(), w.outputs()).
template <class Arch, class T>
void transpose_panel(const PackedMatrix<float>& w, PackedMatrix<T>& out, index_t panel) noexcept {
  constexpr index_t group = depth_group<T>, most = simd::lanes * group;
  const index_t to_width = out.width_of_panel(panel), first_input = panel * panel_width;
  T* to = out.panel(panel);
  for (index_t j = 0; j < w.num_panels(); ++j) {
    const index_t width = w.width_of_panel(j), first_output = j * panel_width;
    const float* from = w.panel(j);
    for (index_t n = 0; n < width; n += most) {
      for (index_t k = 0; k < to_width; k += simd::lanes) {
        const index_t outputs = std::min(most, w.outputs() - first_output - n);
        const index_t inputs = std::min(simd::lanes, w.inputs() - first_input - k);
        const float* block = from + (first_input + k) * width + n;
        T* target = to + (first_output + n) * to_width + k * group;
        if (outputs == most && inputs == simd::lanes) {
          detail::transpose_block<Arch>(block, width, target, to_width);
          continue;
        }
        for (index_t i = 0; i < outputs; ++i) {
          T* row = target + i / group * group * to_width + i % group;
          for (index_t c = 0; c < inputs; ++c) {
            row[c * group] = simd::rounded_to<T>(block[c * width + i]);
          }
        }
      }
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
