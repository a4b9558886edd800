// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The gradient of the loss with respect to logits, a chunk of the vocabulary at a time.

#include "ropewalk/model/head.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Outputs of the vocabulary whose gradients exist at a time. Gradients of hidden states are summed
/// chunk by chunk, so it is a constant of the canonical arithmetic.
inline constexpr index_t head_chunk = 1024;

/// As head_nll(), and lse[r] = the natural log of the sum of e^logit.
template <class Arch, class T>
void head_nll_lse(const T* hidden, index_t ld, std::span<const TokenId> targets,
                  const PackedMatrix<T>& head, std::span<HeadResult> results,
                  double* lse) noexcept {
  const auto rows = static_cast<index_t>(targets.size());
  detail::HeadRows<Arch> row_state(targets);
  detail::read_logits(hidden, ld, rows, head, row_state);
  for (index_t r = 0; r < rows; ++r) {
    results[static_cast<std::size_t>(r)] = detail::result_of(row_state, r);
    lse[r] = row_state.state[r].lse();
  }
}

/// gradient[r][n] = weight[r] (softmax(logits of row r)[n] - [n is the target]) for the outputs
/// chunk.begin + n of the chunk, logits being computed anew from the hidden rows (arXiv:2411.09009
/// keeps none either).
///
/// **Cost:** 2 * rows * C * chunk flops.
/// **Error:** weight times (|s| + 2) 2^-23 of the probability, s the logit in base-2 units.
/// \param hidden (rows, head.depth()) normed hidden states times log2(e), row stride ld
/// \param lse, weight (rows) \param chunk begins at a multiple of 64
/// \param gradient (rows, chunk padded to 16), row stride ldg; padding becomes zero
template <class Arch, class T>
void head_gradient(const T* hidden, index_t ld, std::span<const TokenId> targets,
                   const PackedMatrix<T>& head, const double* lse, const float* weight,
                   Interval chunk, float* gradient, index_t ldg) noexcept {
  using V = simd::Floats<Arch>;
  const auto rows = static_cast<index_t>(targets.size());
  V lowest[head_rows], magic[head_rows], factor[head_rows];
  for (index_t r = 0; r < rows; ++r) {
    // 2^(s - lse) as 2^(s - m) * 2^(m - lse) with an even m near the lse.
    const double base_2 = lse[r] * log2_e;
    const double m = std::fabs(base_2) < 0x1p20 ? 2 * std::nearbyint(base_2 / 2) : 0;
    const simd::Exp2Reference<Arch> reference(static_cast<std::int32_t>(m));
    lowest[r] = reference.lowest;
    magic[r] = reference.magic;
    factor[r] = V(
        static_cast<float>(static_cast<double>(weight[r]) * elementary::exp((m - base_2) * ln_2)));
  }
  PanelProduct<Arch, T> multiply_panel;
  for (index_t j = chunk.begin / panel_width; j * panel_width < chunk.end; ++j) {
    const index_t base = j * panel_width - chunk.begin;
    multiply_panel(
        hidden, ld, rows, head.panel(j), head.width_of_panel(j), head.depth(),
        [&]<std::size_t Vectors>(index_t row, index_t column, V(&logits)[Vectors])
            __attribute__((always_inline)) {
              simd::exp2_from(logits, simd::Exp2Reference<Arch>(lowest[row], magic[row]),
                              simd::exp2_degree_5);
              ROPEWALK_UNROLL
              for (std::size_t v = 0; v < Vectors; ++v) {
                (logits[v] * factor[row])
                    .store(gradient + row * ldg + base + column + detail::column_of(v));
              }
            },
        (j + 1) * panel_width < chunk.end ? head.panel(j + 1) : nullptr);
  }
  for (index_t r = 0; r < rows; ++r) {
    float* row = gradient + r * ldg;
    const index_t target = targets[static_cast<std::size_t>(r)];
    if (target >= chunk.begin && target < chunk.end) row[target - chunk.begin] -= weight[r];
    std::fill(row + chunk.size(), row + round_up(chunk.size(), lane_count), 0.0f);
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
