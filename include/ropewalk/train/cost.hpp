// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What training costs, known before it runs: operations, and bytes a token.

#include <algorithm>

#include "ropewalk/model/cost.hpp"
#include "ropewalk/model/head_gradient.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Floating-point operations of one sequence of `length` tokens in a training step, as is usual: 6
/// a parameter of the matrices and token, head included, plus 14 D N (N + 1) / 2 a head and layer
/// of causal attention. What is computed twice counts once.
inline double training_flops(const LlamaConfig& config, index_t length) {
  const ForwardFlops forward = forward_flops_by_part(config, length);
  return 3 * (forward.products + forward.head) + 3.5 * forward.attention;
}

/// Bytes that a token takes in a step without recomputation, operands being floats and rows not
/// rounded up. Activations are kept: per layer the hidden state, queries, keys and values,
/// attention's output, the hidden state after it, gate and up. The way back has one layer's
/// tensors, and a chunk of the head's gradients (model/head_gradient.hpp).
inline index_t token_bytes(const LlamaConfig& c) {
  const index_t kept = 2 * c.hidden_size + 2 * c.query_size() + 2 * c.key_value_size() +
                       c.num_attention_heads + 2 * c.intermediate_size;
  const index_t back = 7 * c.hidden_size + 2 * c.query_size() + 4 * c.key_value_size() +
                       c.intermediate_size + std::min(head_chunk, c.vocab_size);
  return static_cast<index_t>(sizeof(float)) * (c.num_hidden_layers * kept + back);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
