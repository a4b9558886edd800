// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Gradients of packed weight matrices, and the transposes that carry gradients back through them.

#include "ropewalk/linalg/gemm_tn.hpp"
#include "ropewalk/simd/transpose.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// dW += dY^T X for the outputs of one panel of W, where Y = X W^T: each element an fma chain over
/// tokens ascending, continued from call to call. The gradient has W's packed order, in which a
/// panel is the plain matrix (inputs, outputs of the panel).
/// \param x (tokens, inputs), row stride ldx
/// \param dy (tokens, outputs of the panel padded to 16, padding zero), row stride lddy
template <class Arch>
void add_weight_gradient(const float* x, index_t ldx, const float* dy, index_t lddy, index_t tokens,
                         PackedMatrix<float>& gradient, index_t panel) noexcept {
  const index_t width = gradient.width_of_panel(panel);
  gemm_tn<Arch>(x, ldx, dy, lddy, gradient.inputs(), width, tokens, gradient.panel(panel), width);
}

/// C += A W^T over the inputs [inputs.begin, inputs.end) of W alone. a: (rows, inputs.size()).
template <class Arch>
void gemm_add_inputs(const float* a, index_t lda, index_t rows, const PackedMatrix<float>& w,
                     Interval inputs, float* c, index_t ldc) noexcept {
  using V = simd::Floats<Arch>;
  for (index_t first = 0; first < rows; first += gemm_rows) {
    const index_t count = std::min(gemm_rows, rows - first);
    for (index_t j = 0; j < w.num_panels(); ++j) {
      const index_t width = w.width_of_panel(j);
      multiply_panel<Arch>(
          a + first * lda, lda, count, w.panel(j) + inputs.begin * width, width,
          inputs.size(), [&](index_t row, index_t column, V sums) __attribute__((always_inline)) {
            float* out = c + (first + row) * ldc + j * panel_width + column;
            (V::load(out) + sums).store(out);
          });
    }
  }
}

/// Writes panel `panel` of the transpose of `w`. out: (w.inputs(), w.outputs()).
template <class Arch>
void transpose_panel(const PackedMatrix<float>& w, PackedMatrix<float>& out,
                     index_t panel) noexcept {
  const index_t to_width = out.width_of_panel(panel), first_input = panel * panel_width;
  float* to = out.panel(panel);
  for (index_t j = 0; j < w.num_panels(); ++j) {
    const index_t width = w.width_of_panel(j), first_output = j * panel_width;
    const float* from = w.panel(j);
    for (index_t n = 0; n < width; n += simd::lanes) {
      for (index_t k = 0; k < to_width; k += simd::lanes) {
        const index_t outputs = std::min(simd::lanes, w.outputs() - first_output - n);
        const index_t inputs = std::min(simd::lanes, w.inputs() - first_input - k);
        const float* block = from + (first_input + k) * width + n;
        float* target = to + (first_output + n) * to_width + k;
        if (outputs == simd::lanes && inputs == simd::lanes) {
          simd::transpose_16x16<Arch>(block, width, target, to_width);
          continue;
        }
        for (index_t i = 0; i < outputs; ++i) {
          for (index_t c = 0; c < inputs; ++c) target[i * to_width + c] = block[c * width + i];
        }
      }
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
