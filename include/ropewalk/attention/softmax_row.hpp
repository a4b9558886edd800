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
  constexpr index_t together = 4;  // vectors
  constexpr index_t step = together * simd::lanes;
  // x[i] = weights of the vector at c + 16 i
  const auto weigh = [&]<std::size_t N>(V(&x)[N], index_t c) __attribute__((always_inline)) {
    ROPEWALK_UNROLL
    for (index_t i = 0; i < static_cast<index_t>(N); ++i) {
      x[i] = V::load(scores + c + i * simd::lanes);
    }
    if constexpr (std::is_same_v<T, float>) {
      simd::exp2_from(x, reference, simd::exp2_degree_5);
    } else {
      simd::exp2_from(x, reference, simd::exp2_degree_3);
    }
  };
  const auto weigh_part = [&](index_t c) __attribute__((always_inline)) {
    if (c < visible.hull.begin || c >= visible.hull.end) return V(0.0f);
    V x[1];
    weigh(x, c);
    if (c >= visible.clear.begin && c < visible.clear.end) return x[0];
    return zero_where_equal(x[0], V::load(scores + c), invisible);
  };
  V sum(0.0f);
  if constexpr (std::is_same_v<T, float>) {
    for (index_t c = columns.begin; c < columns.end;) {
      if (c >= visible.clear.begin && c + step <= visible.clear.end) {
        V x[together];
        weigh(x, c);
        ROPEWALK_UNROLL
        for (index_t i = 0; i < together; ++i) {
          x[i].store(scores + c + i * simd::lanes);
          sum = sum + x[i];
        }
        c += step;
      } else {
        const V x = weigh_part(c);
        x.store(scores + c);
        sum = sum + x;
        c += simd::lanes;
      }
    }
  } else {
    const auto put = [&](index_t c, V p, V q) __attribute__((always_inline)) {
      p = rounded_to_bf16(p);
      q = rounded_to_bf16(q);
      sum = simd::add_pairs(p, q, sum);
      if constexpr (simd::has_pairs<Arch>) {  // what is overwritten has been read
        simd::store_bf16<Arch>(reinterpret_cast<T*>(scores) + c, p, q);
      } else {
        swap_neighbours(p).store(scores + c);
        swap_neighbours(q).store(scores + c + simd::lanes);
      }
    };
    for (index_t c = columns.begin; c < columns.end;) {
      if (c >= visible.clear.begin && c + step <= visible.clear.end) {
        V x[together];
        weigh(x, c);
        ROPEWALK_UNROLL
        for (index_t i = 0; i < together; i += 2) {
          put(c + i * simd::lanes, x[i], x[i + 1]);
        }
        c += step;
      } else {
        put(c, weigh_part(c), weigh_part(c + simd::lanes));
        c += 2 * simd::lanes;
      }
    }
  }
  return tree_sum(sum);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
