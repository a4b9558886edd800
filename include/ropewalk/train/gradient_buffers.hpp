// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The memory of one pass of training: what the forward half keeps for the backward half, and what
/// the backward half needs of its own.

#include <type_traits>
#include <vector>

#include "ropewalk/model/forward_buffers.hpp"
#include "ropewalk/train/training_kernels.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// What a layer's forward half leaves behind. Rows are tokens, strides as spread_stride().
template <class T>
struct LayerActivations {
  ForwardBuffers<T> projected;  // .hidden: the layer's input; queries, keys, values by branch
  T* attended = nullptr;        // (tokens, H, D)
  float* lse = nullptr;         // (H, tokens)
  float* middle = nullptr;      // (tokens, C) residual stream after attention
  float* gate = nullptr;        // (tokens, F) before silu; becomes its gradient
  float* up = nullptr;          // (tokens, F); becomes its gradient
};

/// Everything of a pass, taken from the workspace. With `recompute` all layers share their
/// activations but for their inputs, and the forward half of a layer is run again before its
/// backward half. What only products read is stored as T.
template <class T>
struct GradientBuffers {
  index_t hidden_stride = 0, heads_stride = 0, key_heads_stride = 0, fed_stride = 0;
  index_t normed_stride = 0, attended_stride = 0, product_stride = 0;  // of rows of T
  std::vector<LayerActivations<T>> layers;
  float* last_hidden = nullptr;  // (tokens, C)

  float* d_hidden = nullptr;    // (tokens, C) gradient of the residual stream after a layer
  float* d_middle = nullptr;    // (tokens, C)
  T* normed = nullptr;          // (tokens, C) inputs of products, computed again
  float* d_normed = nullptr;    // (tokens, C)
  T* fed = nullptr;             // (tokens, F) inputs of down_proj, computed again
  float* d_attended = nullptr;  // (tokens, H, D)
  float* d_values = nullptr;    // (tokens, K, D)
  std::span<float*> d_queries;  // by branch, (tokens, H, D)
  std::span<float*> d_keys;     // by branch, (tokens, K, D)
  std::span<KeyValuePanels<T>> key_rows;  // by branch: the values are the keys' rows
  KeyValuePanels<T> value_columns;        // the keys are the values, transposed
  float* inverse_rms = nullptr;           // (tokens)

  float* gathered = nullptr;   // (scored tokens, C) last hidden states
  T* scaled = nullptr;         // (scored tokens, C) normed, in base-2 units
  double* lse = nullptr;       // (scored tokens)
  float* weights = nullptr;    // (scored tokens)
  TokenId* targets = nullptr;  // (scored tokens)
  index_t* scored = nullptr;   // (scored tokens)
  float* d_logits = nullptr;   // (scored tokens, a chunk)
  index_t logits_stride = 0;

  index_t scratch_size = 0;
  float* scratch = nullptr;  // (workers, scratch_size)
};

template <class T>
LayerActivations<T> take_activations(const LlamaConfig& c, const GradientBuffers<T>& b,
                                     index_t tokens, index_t branches, index_t slots,
                                     Workspace& workspace) {
  const auto take = [&](index_t rows, index_t columns) {
    return workspace.take<float>(checked_mul(rows, columns, "activations")).data();
  };
  const auto take_operands = [&](index_t rows, index_t columns) {
    return workspace.template take<T>(checked_mul(rows, columns, "activations")).data();
  };
  using Panels = KeyValuePanels<T>;
  LayerActivations<T> a;
  a.projected.hidden_stride = b.hidden_stride;
  a.projected.branches = workspace.template take<AttentionBranch<T>>(branches);
  for (AttentionBranch<T>& branch : a.projected.branches) {
    branch = {.queries = {take_operands(tokens, c.query_size()),
                          {tokens, c.num_attention_heads, c.head_dim}},
              .panels = {.keys = take_operands(
                             Panels::keys_size(slots, c.num_key_value_heads, c.head_dim), 1),
                         .slots = slots,
                         .num_heads = c.num_key_value_heads,
                         .head_dim = c.head_dim}};
  }
  a.projected.branches[0].panels.values =
      take_operands(Panels::values_size(slots, c.num_key_value_heads, c.head_dim), 1);
  a.attended = take_operands(tokens, b.attended_stride);
  a.lse = take(c.num_attention_heads, tokens);
  a.middle = take(tokens, b.hidden_stride);
  a.gate = take(tokens, b.fed_stride);
  a.up = take(tokens, b.fed_stride);
  return a;
}

template <class T>
GradientBuffers<T> take_gradient_buffers(const LlamaConfig& c, index_t tokens, index_t scored,
                                         index_t branches, index_t slots, bool recompute,
                                         const Executor& executor, Workspace& workspace) {
  GradientBuffers<T> b;
  b.hidden_stride = spread_stride(c.hidden_size);
  b.heads_stride = spread_stride(c.query_size());
  b.key_heads_stride = spread_stride(c.key_value_size());
  b.fed_stride = spread_stride(c.intermediate_size);
  b.normed_stride = spread_stride<T>(c.hidden_size);
  b.attended_stride = spread_stride<T>(c.query_size());
  b.product_stride = spread_stride<T>(c.intermediate_size);
  const auto take = [&](index_t rows, index_t columns) {
    return workspace.take<float>(checked_mul(rows, columns, "activations")).data();
  };
  const auto take_operands = [&](index_t rows, index_t columns) {
    return workspace.template take<T>(checked_mul(rows, columns, "activations")).data();
  };
  for (index_t l = 0; l < c.num_hidden_layers; ++l) {
    if (l == 0 || !recompute) {
      b.layers.push_back(take_activations(c, b, tokens, branches, slots, workspace));
    } else {
      b.layers.push_back(b.layers.front());
    }
    b.layers.back().projected.hidden = take(tokens, b.hidden_stride);
  }
  b.last_hidden = take(tokens, b.hidden_stride);
  b.d_hidden = take(tokens, b.hidden_stride);
  b.d_middle = take(tokens, b.hidden_stride);
  b.normed = take_operands(tokens, b.normed_stride);
  b.d_normed = take(tokens, b.hidden_stride);
  b.fed = take_operands(tokens, b.product_stride);
  b.d_attended = take(tokens, b.heads_stride);
  b.d_values = take(tokens, b.key_heads_stride);
  b.d_queries = workspace.take<float*>(branches);
  b.d_keys = workspace.take<float*>(branches);
  b.key_rows = workspace.template take<KeyValuePanels<T>>(branches);
  using Panels = KeyValuePanels<T>;
  const index_t heads = c.num_key_value_heads;
  for (std::size_t i = 0; i < b.d_queries.size(); ++i) {
    b.d_queries[i] = take(tokens, b.heads_stride);
    b.d_keys[i] = take(tokens, b.key_heads_stride);
    b.key_rows[i] = {.values = take_operands(Panels::values_size(slots, heads, c.head_dim), 1),
                     .slots = slots,
                     .num_heads = heads,
                     .head_dim = c.head_dim};
  }
  b.value_columns = {.keys = take_operands(Panels::keys_size(slots, heads, c.head_dim), 1),
                     .slots = slots,
                     .num_heads = heads,
                     .head_dim = c.head_dim};
  b.inverse_rms = take(tokens, 1);
  b.gathered = take(scored, b.hidden_stride);
  b.scaled = take_operands(scored, b.normed_stride);
  b.lse = workspace.take<double>(scored).data();
  b.weights = take(scored, 1);
  b.targets = workspace.take<TokenId>(scored).data();
  b.scored = workspace.take<index_t>(scored).data();
  b.logits_stride = spread_stride(std::min(head_chunk, c.vocab_size));
  b.d_logits = take(scored, b.logits_stride);
  const index_t projected = std::max(b.heads_stride, b.key_heads_stride);
  const index_t rounded_logits =
      std::is_same_v<T, float>
          ? 0
          : head_rows * spread_stride<T>(std::min(head_chunk, c.vocab_size)) / depth_group<T>;
  b.scratch_size =
      round_up(std::max({head_rows * (b.hidden_stride + std::max(projected, b.fed_stride)),
                         rounded_logits, attention_scratch_size<T>(c.head_dim),
                         attend_backward_scratch_size<T>(c.head_dim)}),
               lane_count);
  b.scratch =
      workspace.take<float>(checked_mul(executor.workers(), b.scratch_size, "scratch")).data();
  for (LayerActivations<T>& a : b.layers) {
    a.projected.scratch_size = b.scratch_size;
    a.projected.scratch = b.scratch;
  }
  return b;
}

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
