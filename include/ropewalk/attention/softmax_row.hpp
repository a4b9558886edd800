// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// One row of one block of an online softmax, in vectors.

#include <algorithm>
#include <limits>
#include <type_traits>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/softmax_state.hpp"
#include "ropewalk/linalg/tile.hpp"
#include "ropewalk/simd/math.hpp"
#include "ropewalk/simd/pairs.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Row stride of a block of scores: one vector more than a block, so that rows do not meet in the
/// same cache sets.
inline constexpr index_t score_stride = key_block + simd::lanes;

/// Columns of a block that a row sees. Within the hull of whole vectors what is invisible has been
/// set to -inf.
struct VisibleColumns {
  Interval hull;   ///< multiples of the vector
  Interval clear;  ///< vectors in here hold nothing that is invisible
};

/// Largest of values[hull]; the hull is not empty.
template <class Arch>
[[gnu::always_inline]] inline float largest_of(const float* values, Interval hull) {
  using V = simd::Floats<Arch>;
  V largest = V::load(values + hull.begin), others[3] = {largest, largest, largest};
  index_t c = hull.begin + simd::lanes;
  for (; c + 4 * simd::lanes <= hull.end; c += 4 * simd::lanes) {
    largest = max(largest, V::load(values + c));
    ROPEWALK_UNROLL
    for (index_t i = 0; i < 3; ++i) {
      others[i] = max(others[i], V::load(values + c + (i + 1) * simd::lanes));
    }
  }
  for (; c < hull.end; c += simd::lanes) largest = max(largest, V::load(values + c));
  largest = max(max(largest, others[0]), max(others[1], others[2]));
  return max_lane(largest);
}

/// simd::exp2_from() as precise as weights of T are kept.
template <class T, class Arch, std::size_t Vectors>
[[gnu::always_inline]] inline void weights_from(simd::Floats<Arch> (&x)[Vectors],
                                                const simd::Exp2Reference<Arch>& reference) {
  if constexpr (std::is_same_v<T, float>) {
    simd::exp2_from(x, reference, simd::exp2_degree_5);
  } else {
    simd::exp2_from(x, reference, simd::exp2_degree_3);
  }
}

/// Turns a row of scores into weights 2^(score - reference), in place, for columns [columns.begin,
/// columns.end), multiples of the vector: zeros where the row sees nothing. Gives the sum of the
/// weights, by 16 lanes and the tree.
///
/// T = float: weights are floats. T = bf16: they are rounded, in the lower half of the row's memory
/// where Arch multiplies bf16, else as floats; the sum is that of the rounded ones; columns are
/// multiples of 32.
template <class Arch, class T>
float weigh_row(float* scores, VisibleColumns visible, Interval columns,
                std::int32_t row_reference) {
  using V = simd::Floats<Arch>;
  const V invisible(-std::numeric_limits<float>::infinity());
  const simd::Exp2Reference<Arch> reference(row_reference);
  constexpr index_t unit = depth_group<T>;
  constexpr bool weights_are_bf16 = simd::has_pairs<Arch> || simd::has_matrix_tiles<Arch>;
  constexpr std::size_t many = 2 * GemmTile<Arch>::vectors;  // that the registers hold
  V sum(0.0f);
  // Stores the weights x of the columns from c on, and adds them up.
  const auto put = [&]<std::size_t N>(index_t c, const V(&x)[N]) __attribute__((always_inline)) {
    if constexpr (std::is_same_v<T, float>) {
      ROPEWALK_UNROLL
      for (index_t i = 0; i < static_cast<index_t>(N); ++i) {
        x[i].store(scores + c + i * simd::lanes);
        sum = sum + x[i];
      }
    } else {
      ROPEWALK_UNROLL
      for (index_t i = 0; i < static_cast<index_t>(N); i += 2) {
        const index_t at = c + i * simd::lanes;
        if constexpr (weights_are_bf16) {  // what is overwritten has been read
          sum = simd::store_bf16_and_add<Arch>(reinterpret_cast<T*>(scores) + at, x[i], x[i + 1],
                                               sum);
        } else {
          const V p = rounded_normal_to_bf16(x[i]), q = rounded_normal_to_bf16(x[i + 1]);
          sum = simd::add_pairs(p, q, sum);
          p.store(scores + at);
          q.store(scores + at + simd::lanes);
        }
      }
    }
  };
  const auto weigh = [&]<std::size_t N>(index_t c, V(&x)[N]) __attribute__((always_inline)) {
    ROPEWALK_UNROLL
    for (index_t i = 0; i < static_cast<index_t>(N); ++i) {
      x[i] = V::load(scores + c + i * simd::lanes);
    }
    weights_from<T>(x, reference);
  };
  index_t c = columns.begin;
  // Columns up to `end` that may be invisible, or lie outside of the hull.
  const auto weigh_masked = [&](index_t end) __attribute__((always_inline)) {
    for (; c < end; c += unit * simd::lanes) {
      V x[static_cast<std::size_t>(unit)];
      ROPEWALK_UNROLL
      for (index_t i = 0; i < unit; ++i) {
        const index_t at = c + i * simd::lanes;
        x[i] = V(0.0f);
        if (at < visible.hull.begin || at >= visible.hull.end) continue;
        V one[1];
        weigh(at, one);
        x[i] = zero_where_equal(one[0], V::load(scores + at), invisible);
      }
      put(c, x);
    }
  };
  // As many columns as are all visible up to `end`, N vectors at a time.
  const auto weigh_clear = [&]<std::size_t N>(std::integral_constant<std::size_t, N>, index_t end)
      __attribute__((always_inline)) {
    for (; c + static_cast<index_t>(N) * simd::lanes <= end;
         c += static_cast<index_t>(N) * simd::lanes) {
      V x[N];
      weigh(c, x);
      put(c, x);
    }
  };
  const Interval clear{
      round_up(visible.clear.begin - columns.begin, unit * simd::lanes) + columns.begin,
      std::min(visible.clear.end, columns.end)};
  if (!clear.empty()) {
    weigh_masked(clear.begin);
    weigh_clear(std::integral_constant<std::size_t, many>{}, clear.end);
    weigh_clear(
        std::integral_constant<std::size_t, std::max<std::size_t>(many / 4, depth_group<T>)>{},
        clear.end);
  }
  weigh_masked(columns.end);
  if constexpr (std::is_same_v<T, bf16>) sum = in_order(sum);
  return tree_sum(sum);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
