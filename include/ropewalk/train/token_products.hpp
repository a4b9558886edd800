// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Operands of a pass of training, and the tasks and runs of rows of its products over tokens.

#include <algorithm>
#include <span>
#include <vector>

#include "ropewalk/core/tensor_view.hpp"
#include "ropewalk/linalg/packed_matrix.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// Rows of an operand of a product.
template <class T>
struct OperandRows {
  const T* data;
  index_t ld;
};

/// Panels of a gradient that a task takes: what they have in common is read once.
inline constexpr index_t task_panels = 2;

/// dW += dY^T X of some panels of a matrix, as a task.
template <class T>
struct WeightGradientTask {
  OperandRows<T> x;
  const float* dy;  // of the panels
  index_t lddy;
  PackedMatrix<float>* gradient;
  Interval panels;

  index_t cost() const { return gradient->inputs() * panels.size(); }
};

/// Runs of rows that sums over tokens take at once, given how many rows there are up to the end of
/// each segment: all of them, or, where operands are taken in pairs, up to each segment that leaves
/// an odd row. So a segment's pairs are the same whatever is before it in the batch.
template <class T>
std::vector<Interval> runs_of_pairs(std::span<const index_t> ends) {
  std::vector<Interval> runs;
  index_t begin = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (ends[i] == begin) continue;
    if ((ends[i] - begin) % depth_group<T> == 0 && i + 1 < ends.size()) continue;
    runs.push_back({begin, ends[i]});
    begin = ends[i];
  }
  return runs;
}

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
