// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The output matrix and the loss in one pass: per row nll and argmax, logits never leave
/// registers.

#include <algorithm>
#include <limits>
#include <span>
#include <utility>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/softmax_state.hpp"
#include "ropewalk/linalg/gemm.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Rows of one head_nll call.
inline constexpr index_t head_rows = gemm_rows;

/// Loss and prediction of one position.
struct HeadResult {
  double nll = 0;      ///< -log p(target), nats
  TokenId argmax = 0;  ///< the most probable token, the lowest id among equals
};

namespace detail {

/// What head_nll knows of its rows while logits go by, those of a row in a tile at a time.
template <class Arch>
struct HeadRows {
  using V = simd::Floats<Arch>;
  SoftmaxState state[head_rows];
  V lowest[head_rows], magic[head_rows];  ///< of exp2_from at the state's reference
  V sums[head_rows];                      ///< of the present block of the vocabulary
  float best[head_rows];
  float target_score[head_rows];
  index_t target[head_rows];
  TokenId argmax[head_rows];

  explicit HeadRows(std::span<const TokenId> targets) {
    const simd::Exp2Reference<Arch> zero(0);
    for (std::size_t r = 0; r < targets.size(); ++r) {
      lowest[r] = zero.lowest;
      magic[r] = zero.magic;
      sums[r] = V(0.0f);
      best[r] = -std::numeric_limits<float>::infinity();
      target_score[r] = std::numeric_limits<float>::quiet_NaN();
      target[r] = targets[r];
      argmax[r] = 0;
    }
  }
  /// Logits (base 2) of outputs from `column` on, of which `valid` exist.
  template <std::size_t Vectors>
  [[gnu::always_inline]] void add(index_t row, index_t column, index_t valid,
                                  V (&logits)[Vectors]) {
    constexpr auto width = static_cast<index_t>(Vectors) * simd::lanes;
    if (valid < width) {
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) {
        logits[v] = V::select_first(valid - detail::column_of(v), logits[v], nothing());
      }
    }
    bool greater = false;
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) greater |= any_greater(logits[v], V(best[row]));
    const index_t at = target[row] - column;
    const bool has_target = at >= 0 && at < width;
    if (greater || has_target) {
      // A copy, so that the logits themselves stay in registers.
      alignas(64) float values[static_cast<std::size_t>(width)];
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) logits[v].store(values + detail::column_of(v));
      if (has_target) target_score[row] = values[at];
      if (greater) raise(row, column, values);
    }
    V p[Vectors];
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) p[v] = logits[v];
    simd::exp2_from(p, simd::Exp2Reference<Arch>(lowest[row], magic[row]), simd::exp2_degree_5);
    if (valid < width) {
      for (std::size_t v = 0; v < Vectors; ++v) p[v] = zero_where_equal(p[v], logits[v], nothing());
    }
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) sums[row] = sums[row] + p[v];
  }
  /// The end of a block of the vocabulary: its lanes are summed by the tree, and blocks in double.
  void end_block(index_t rows) {
    for (index_t r = 0; r < rows; ++r) {
      state[r].sum += static_cast<double>(tree_sum(sums[r]));
      sums[r] = V(0.0f);
    }
  }

 private:
  static V nothing() { return V(-std::numeric_limits<float>::infinity()); }
  /// Some logit is above all before it, or NaN. Rare: about log(V) times a row.
  [[gnu::noinline]] void raise(index_t row, index_t column, std::span<const float> values) {
    const auto [largest, ordered] = largest_of(values);
    const float seen = ordered ? largest : std::numeric_limits<float>::quiet_NaN();
    sums[row] = sums[row] * V(state[row].raise(seen));
    if (!ordered) state[row].sum = std::numeric_limits<double>::quiet_NaN();
    const simd::Exp2Reference<Arch> reference(state[row].reference);
    lowest[row] = reference.lowest;
    magic[row] = reference.magic;
    if (!(largest > best[row])) return;
    best[row] = largest;
    const auto at = std::find(values.begin(), values.end(), largest) - values.begin();
    argmax[row] = static_cast<TokenId>(column + at);
  }
  /// The largest of what is not NaN, and whether that is all. values: whole vectors
  static std::pair<float, bool> largest_of(std::span<const float> values) {
    const auto each = [&](auto&& f) {
      for (std::size_t i = 0; i < values.size(); i += simd::lanes) f(V::load(values.data() + i));
    };
    V most = nothing();
    each([&](V x) { most = max(most, x); });
    float largest = max_lane(most);
    bool ordered = true;  // NaN is not below it
    each([&](V x) { ordered = ordered && !any_greater(x, V(largest)); });
    if (ordered) return {largest, true};
    largest = -std::numeric_limits<float>::infinity();
    for (const float x : values) largest = x > largest ? x : largest;
    return {largest, false};
  }
};

/// Lets all logits of the rows go by, panel by panel; sums of the vocabulary are formed in fixed
/// blocks of 512 outputs that are added in order (canonical arithmetic).
template <class Arch, class T>
void read_logits(const T* hidden, index_t ld, index_t rows, const PackedMatrix<T>& head,
                 HeadRows<Arch>& row_state) noexcept {
  using V = simd::Floats<Arch>;
  constexpr index_t panels_of_block = key_block / panel_width;
  PanelProduct<Arch, T> multiply_panel;
  for (index_t j = 0; j < head.num_panels(); ++j) {
    const index_t base = j * panel_width;
    multiply_panel(
        hidden, ld, rows, head.panel(j), head.width_of_panel(j), head.depth(),
        [&]<std::size_t Vectors>(index_t row, index_t column, V(&logits)[Vectors])
            __attribute__((always_inline)) {
              row_state.add(row, base + column, head.outputs() - base - column, logits);
            },
        j + 1 < head.num_panels() ? head.panel(j + 1) : nullptr);
    if ((j + 1) % panels_of_block == 0 || j + 1 == head.num_panels()) row_state.end_block(rows);
  }
}

/// Result of row r once all logits have gone by.
template <class Arch>
HeadResult result_of(const HeadRows<Arch>& row_state, index_t r) {
  const double target = static_cast<double>(row_state.target_score[r]);
  return {std::fma(-target, ln_2, row_state.state[r].lse()), row_state.argmax[r]};
}

}  // namespace detail

/// results[r] of hidden row r against targets[r], for at most head_rows rows.
///
/// **Cost:** 2 * rows * C * V flops; memory independent of V.
/// **Error:** 2 u32 (|max logit| + |lse|) + 1e-7 (tests/model/test_head.cpp).
/// \param hidden (rows, head.depth()) normed hidden states times log2(e), row stride ld
template <class Arch, class T>
void head_nll(const T* hidden, index_t ld, std::span<const TokenId> targets,
              const PackedMatrix<T>& head, std::span<HeadResult> results) noexcept {
  const auto rows = static_cast<index_t>(targets.size());
  detail::HeadRows<Arch> row_state(targets);
  detail::read_logits(hidden, ld, rows, head, row_state);
  for (index_t r = 0; r < rows; ++r) {
    results[static_cast<std::size_t>(r)] = detail::result_of(row_state, r);
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
