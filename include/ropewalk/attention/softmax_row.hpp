// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// One row of one block of an online softmax, in vectors.

#include <algorithm>
#include <limits>
#include <type_traits>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/softmax_state.hpp"
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
  V largest = V::load(values + hull.begin);
  for (index_t c = hull.begin + simd::lanes; c < hull.end; c += simd::lanes) {
    largest = max(largest, V::load(values + c));
  }
  return max_lane(largest);
}

/// Turns a row of scores into weights 2^(score - reference), in place, for columns [columns.begin,
/// columns.end), multiples of the vector: zeros where the row sees nothing. Gives the sum of the
/// weights, by 16 lanes and the tree.
///
/// T = float: weights are floats. T = bf16: they are rounded, in the lower half of the row's memory
/// where Arch multiplies pairs, else as floats with neighbours swapped (simd/pairs.hpp); the sum is
/// that of the rounded ones; columns are multiples of 32.
template <class Arch, class T>
float weigh_row(float* scores, VisibleColumns visible, Interval columns,
                std::int32_t row_reference) {
  using V = simd::Floats<Arch>;
  const V invisible(-std::numeric_limits<float>::infinity());
  const simd::Exp2Reference<Arch> reference(row_reference);
  const auto weight = [&](index_t c, bool masked) __attribute__((always_inline)) {
    const V s = V::load(scores + c);
    V p;
    if constexpr (std::is_same_v<T, float>) {
      p = simd::exp2_from(s, reference);
    } else {
      p = simd::coarse_exp2_from(s, reference);
    }
    return masked ? zero_where_equal(p, s, invisible) : p;
  };
  V sum(0.0f);
  if constexpr (std::is_same_v<T, float>) {
    const auto weigh = [&](index_t c, bool masked) __attribute__((always_inline)) {
      const V p = weight(c, masked);
      p.store(scores + c);
      sum = sum + p;
    };
    const Interval hull = visible.hull;
    const index_t clear_end = std::max(hull.begin, visible.clear.end);
    const index_t clear_begin = std::min(std::max(hull.begin, visible.clear.begin), clear_end);
    index_t c = columns.begin;
    for (; c < hull.begin; c += simd::lanes) V(0.0f).store(scores + c);
    for (; c < clear_begin; c += simd::lanes) weigh(c, true);
    for (; c + 4 * simd::lanes <= clear_end; c += 4 * simd::lanes) {
      ROPEWALK_UNROLL
      for (index_t i = 0; i < 4; ++i) weigh(c + i * simd::lanes, false);
    }
    for (; c < clear_end; c += simd::lanes) weigh(c, false);
    for (; c < hull.end; c += simd::lanes) weigh(c, true);
    for (; c < columns.end; c += simd::lanes) V(0.0f).store(scores + c);
  } else {
    const auto or_zero = [&](index_t c) __attribute__((always_inline)) {
      if (c < visible.hull.begin || c >= visible.hull.end) return V(0.0f);
      return weight(c, c < visible.clear.begin || c >= visible.clear.end);
    };
    for (index_t c = columns.begin; c < columns.end; c += 2 * simd::lanes) {
      const V p = rounded_to_bf16(or_zero(c)), q = rounded_to_bf16(or_zero(c + simd::lanes));
      sum = simd::add_pairs(p, q, sum);
      if constexpr (simd::has_pairs<Arch>) {  // what is overwritten has been read
        simd::store_bf16<Arch>(reinterpret_cast<T*>(scores) + c, p, q);
      } else {
        swap_neighbours(p).store(scores + c);
        swap_neighbours(q).store(scores + c + simd::lanes);
      }
    }
  }
  return tree_sum(sum);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
