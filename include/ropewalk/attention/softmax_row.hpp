// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// One row of one block of an online softmax, in vectors.

#include <limits>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/softmax_state.hpp"
#include "ropewalk/simd/math.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Row stride of a block of scores: one vector more than a block, so that rows do not meet in the
/// same cache sets.
inline constexpr index_t score_stride = key_block + simd::lanes;

/// Columns of a score row that are to be read, as hull of whole vectors; what is invisible within
/// it has been set to -inf.
struct VisibleColumns {
  Interval hull;
  bool masked = false;
};

/// Largest of values[0 .. count); count > 0, and the last vector is readable and padded with -inf.
template <class Arch>
float largest_of(const float* values, index_t count) {
  using V = simd::Floats<Arch>;
  V largest = V::load(values);
  for (index_t c = simd::lanes; c < count; c += simd::lanes) {
    largest = max(largest, V::load(values + c));
  }
  return max_lane(largest);
}

/// Turns scores into 2^(score - reference) in place, zeros outside the visible columns up to
/// `columns`, adds their sum to the state, and returns the factor for earlier outputs.
template <class Arch>
float softmax_row(float* scores, VisibleColumns visible, index_t columns, SoftmaxState& state) {
  using V = simd::Floats<Arch>;
  const V invisible(-std::numeric_limits<float>::infinity());
  for (index_t c = 0; c < visible.hull.begin; c += simd::lanes) V(0.0f).store(scores + c);
  for (index_t c = visible.hull.end; c < columns; c += simd::lanes) V(0.0f).store(scores + c);
  if (visible.hull.empty()) return 1.0f;

  const float factor =
      state.raise(largest_of<Arch>(scores + visible.hull.begin, visible.hull.size()));
  const simd::Exp2Reference<Arch> reference(state.reference);
  V sum(0.0f);
  for (index_t c = visible.hull.begin; c < visible.hull.end; c += simd::lanes) {
    const V s = V::load(scores + c);
    V p = simd::exp2_from(s, reference);
    if (visible.masked) p = zero_where_equal(p, s, invisible);
    p.store(scores + c);
    sum = sum + p;
  }
  state.sum += static_cast<double>(tree_sum(sum));
  return factor;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
