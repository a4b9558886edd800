// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The output matrix and the loss in one pass: per row nll and argmax, logits never materialised.

#include <span>

#include "ropewalk/attention/softmax_row.hpp"
#include "ropewalk/linalg/gemm.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Values of a target that is no token.
inline constexpr TokenId not_scored = -1;    ///< the row is skipped
inline constexpr TokenId predict_only = -2;  ///< the row gets an argmax and nll = NaN

/// Rows of one head_nll call.
inline constexpr index_t head_rows = 96;
/// Floats of scratch of a head_nll call.
inline constexpr index_t head_scratch_size = head_rows * score_stride;

/// Loss and prediction of one position.
struct HeadResult {
  double nll = 0;      ///< -log p(target), nats
  TokenId argmax = 0;  ///< the most probable token, the lowest id among equals
};

/// results[r] of hidden row r against targets[r], for at most head_rows rows. The vocabulary is
/// read in fixed blocks of 512 outputs that are merged in order (canonical arithmetic).
///
/// **Cost:** 2 * rows * C * V flops; memory independent of V.
/// **Error:** 2 u32 (|max logit| + |lse|) + 1e-7 (tests/model/test_head.cpp).
/// \param hidden (rows, C) normed hidden states times log2(e), row stride ld
template <class Arch>
void head_nll(const float* hidden, index_t ld, std::span<const TokenId> targets,
              const PackedMatrix<float>& head, std::span<HeadResult> results,
              float* scratch) noexcept {
  using V = simd::Floats<Arch>;
  struct Row {
    SoftmaxState state;
    float best = -std::numeric_limits<float>::infinity();
    float target_score = std::numeric_limits<float>::quiet_NaN();
  };
  const auto rows = static_cast<index_t>(targets.size());
  Row row_state[head_rows];
  for (index_t base = 0; base < head.outputs(); base += key_block) {
    const index_t count = std::min(key_block, head.outputs() - base);
    for (index_t c = 0; c < count; c += panel_width) {
      const index_t j = (base + c) / panel_width;
      multiply_panel<Arch>(
          hidden, ld, rows, head.panel(j), head.width_of_panel(j),
          head.inputs(), [&](index_t r, index_t column, V s) __attribute__((always_inline)) {
            s.store(scratch + r * score_stride + c + column);
          });
    }
    for (index_t r = 0; r < rows; ++r) {
      Row& row = row_state[r];
      HeadResult& result = results[static_cast<std::size_t>(r)];
      float* s = scratch + r * score_stride;
      for (index_t c = count; c < round_up(count, lane_count); ++c) {
        s[c] = -std::numeric_limits<float>::infinity();
      }
      const float largest = largest_of<Arch>(s, count);
      if (largest > row.best) {
        row.best = largest;
        result.argmax = static_cast<TokenId>(base + (std::find(s, s + count, largest) - s));
      }
      const index_t target = targets[static_cast<std::size_t>(r)] - base;
      if (target >= 0 && target < count) row.target_score = s[target];
      softmax_row<Arch>(s, {{0, round_up(count, lane_count)}, count % lane_count != 0}, count,
                        row.state);
    }
  }
  for (index_t r = 0; r < rows; ++r) {
    const Row& row = row_state[r];
    const double target = static_cast<double>(row.target_score);
    results[static_cast<std::size_t>(r)].nll = std::fma(-target, ln_2, row.state.lse());
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
