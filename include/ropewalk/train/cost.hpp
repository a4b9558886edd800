// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Operations that training counts.

#include "ropewalk/model/cost.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Floating-point operations of one sequence of `length` tokens in a training step, as is usual: 6
/// a parameter of the matrices and token, head included, plus 14 D N (N + 1) / 2 a head and layer
/// of causal attention. What is computed twice counts once.
inline double training_flops(const LlamaConfig& config, index_t length) {
  const ForwardFlops forward = forward_flops_by_part(config, length);
  return 3 * (forward.products + forward.head) + 3.5 * forward.attention;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
