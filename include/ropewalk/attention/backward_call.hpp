// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What the gradient of attention reads and writes.

#include <span>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/panels.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// One rotation's operands and gradients.
template <class T>
struct AttentionGradientBranch {
  TensorView<const T, 3> queries;  ///< (tokens, H, D), as attend() read them
  KeyValuePanels<T> keys;          ///< keys: transposed, as attend() read them; values: as rows
  TensorView<float, 3> d_queries;  ///< (tokens, H, D) with respect to `queries` as given
  TensorView<float, 3> d_keys;     ///< (tokens, K, D)
};

/// What attend_backward() reads and writes; the same for all tasks of a layer.
template <class T>
struct AttentionGradientCall {
  std::span<const AttentionGradientBranch<T>> branches;
  KeyValuePanels<T> values;  ///< keys: the values, transposed; values: unused
  const BlockPlan* plan = nullptr;
  TensorView<const T, 3> output;        ///< (tokens, H, D) of attend()
  TensorView<const float, 2> lse;       ///< (H, tokens) of attend(), natural log
  TensorView<const float, 3> d_output;  ///< (tokens, H, D); a product's operand, rounded to T
  TensorView<float, 3> d_values;        ///< (tokens, K, D)
};

}  // namespace ropewalk::inline ROPEWALK_ABI
