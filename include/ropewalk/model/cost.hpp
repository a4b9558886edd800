// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a forward pass costs, known before it runs: floating-point operations and bytes.

#include <algorithm>

#include "ropewalk/core/error.hpp"
#include "ropewalk/model/llama.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Floating-point operations of a pass over one sequence, a multiply-add counted as two. Norms,
/// rotations and the exponentials of softmax are not counted.
struct ForwardFlops {
  double products = 0;   ///< matrix products of the layers: 2 N (2 H D + 2 K D + 3 F) C a layer
  double head = 0;       ///< the output matrix on every position: 2 N C V
  double attention = 0;  ///< scores and their products with values: 4 D N (N + 1) / 2 a head, layer

  double total() const { return products + head + attention; }
};

/// Operations of a causal pass over `length` tokens, by part.
inline ForwardFlops forward_flops_by_part(const LlamaConfig& c, index_t length) {
  require(length >= 0, "length >= 0");
  const auto real = [](index_t n) { return static_cast<double>(n); };
  const double n = real(length), layers = real(c.num_hidden_layers), hidden = real(c.hidden_size);
  const double outputs =
      2 * real(c.query_size()) + 2 * real(c.key_value_size()) + 3 * real(c.intermediate_size);
  return {.products = 2 * n * layers * outputs * hidden,
          .head = 2 * n * hidden * real(c.vocab_size),
          .attention = layers * real(c.query_size()) * 2 * n * (n + 1)};
}

/// Operations of a causal pass over `length` tokens: 2 per multiply-add of the matrix products with
/// the head on every position, plus 4 D N (N + 1) / 2 per head and layer of causal attention.
inline double forward_flops(const LlamaConfig& config, index_t length) {
  return forward_flops_by_part(config, length).total();
}

/// Bytes that a forward pass holds at its peak.
struct ForwardMemory {
  index_t weights = 0;     ///< packed matrices and norms, with their padding
  index_t workspace = 0;   ///< exactly Workspace::peak_bytes() after the pass
  index_t rotary = 0;      ///< rows of cos and sin, positions, and what making them takes
  index_t block_plan = 0;  ///< of a causal mask
  index_t kv_cache = 0;    ///< panels of all layers; 0 without a cache
  index_t results = 0;     ///< one HeadResult a token

  index_t total() const { return weights + workspace + rotary + block_plan + kv_cache + results; }
};

namespace detail {

/// Sums of products, checked: shapes of files may be absurd.
class ByteCount {
 public:
  ByteCount& add(index_t count, index_t size) {
    bytes_ = checked_add(bytes_, checked_mul(count, size, "memory"), "memory");
    return *this;
  }
  /// A slice of `count` elements as Workspace::take() rounds it.
  ByteCount& slice(index_t count, index_t size) {
    return add(round_up(checked_mul(count, size, "memory"), index_t{storage_alignment}), 1);
  }
  index_t value() const { return bytes_; }

 private:
  index_t bytes_ = 0;
};

template <class T>
index_t weight_bytes(const LlamaConfig& c) {
  ByteCount layer, all;
  const auto matrix = [&](ByteCount& to, index_t outputs, index_t inputs) {
    to.add(checked_mul(round_up(outputs, lane_count), round_up(inputs, depth_group<T>), "memory"),
           sizeof(T));
  };
  matrix(layer, c.query_size(), c.hidden_size);
  matrix(layer, c.key_value_size(), c.hidden_size);
  matrix(layer, c.key_value_size(), c.hidden_size);
  matrix(layer, c.hidden_size, c.query_size());
  matrix(layer, c.intermediate_size, c.hidden_size);
  matrix(layer, c.intermediate_size, c.hidden_size);
  matrix(layer, c.hidden_size, c.intermediate_size);
  layer.add(2 * c.hidden_size, sizeof(float));
  all.add(c.num_hidden_layers, layer.value()).add(c.hidden_size, sizeof(float));
  matrix(all, c.vocab_size, c.hidden_size);
  if (!c.tie_word_embeddings) matrix(all, c.vocab_size, c.hidden_size);
  if (c.norm_head) matrix(all, c.vocab_size, c.hidden_size);
  return all.value();
}

/// The slices of take_buffers() and forward(), in their order.
template <class T>
index_t workspace_bytes(const LlamaConfig& c, index_t tokens, index_t slots, index_t workers,
                        bool cached) {
  using Panels = KeyValuePanels<T>;
  constexpr index_t real = sizeof(float), element = sizeof(T);
  const index_t key_heads = c.num_key_value_heads;
  const index_t hidden = spread_stride(c.hidden_size);
  ByteCount sum;
  sum.slice(checked_mul(tokens, hidden, "memory"), real);
  sum.slice(1, sizeof(AttentionBranch<T>));
  sum.slice(checked_mul(tokens, spread_stride<T>(c.query_size()), "memory"), element);
  if (!cached) {
    sum.slice(Panels::keys_size(slots, key_heads, c.head_dim), element);
    sum.slice(Panels::values_size(slots, key_heads, c.head_dim), element);
  }
  const index_t projected = std::max(c.query_size(), c.key_value_size());
  const index_t widest = hidden + spread_stride(std::max(projected, index_t{c.intermediate_size}));
  const index_t scratch =
      std::max({token_tile<T> * widest, attention_scratch_size<T>(c.head_dim), head_rows * hidden});
  sum.slice(checked_mul(workers, round_up(scratch, lane_count), "memory"), real);
  sum.slice(tokens, sizeof(index_t));
  return sum.value();
}

}  // namespace detail

/// Tokens of a pass over sequences side by side.
struct BatchShape {
  index_t tokens = 0;
  index_t key_slots = 0;    ///< tokens of each sequence, rounded up to panels of 64
  index_t rotary_rows = 0;  ///< rows of cos and sin: positions, of each frequency plan

  /// Of one sequence.
  static BatchShape of(index_t tokens) { return {tokens, round_up(tokens, panel_width), tokens}; }
};

/// Bytes of a pass over `batch`: one mask, one branch, `workers` threads. With `cached`, keys and
/// values of all layers are kept for that many tokens, as for decoding. T: how matrices, keys and
/// values are stored.
/// \throws Error(limit) when a product does not fit 64 bits
template <class T = float>
ForwardMemory forward_memory(const LlamaConfig& c, const BatchShape& batch, index_t workers,
                             bool cached) {
  require(batch.tokens >= 1 && workers >= 1, "at least one token and one worker");
  const index_t tokens = batch.tokens, slots = batch.key_slots;
  ForwardMemory m{.weights = detail::weight_bytes<T>(c),
                  .workspace = detail::workspace_bytes<T>(c, tokens, slots, workers, cached)};
  // Two floats a pair, the row and the position of each token. While rows are made, distinct
  // positions and a hash table of 8 to 16 bytes a token are there, too.
  m.rotary = detail::ByteCount()
                 .add(batch.rotary_rows, checked_mul(c.head_dim, index_t{sizeof(float)}, "memory"))
                 .add(tokens, sizeof(std::int32_t) + sizeof(std::int64_t))
                 .add(tokens, sizeof(std::int32_t) + sizeof(std::int64_t) + 16)
                 .value();
  m.block_plan = detail::ByteCount().add(tokens, sizeof(Interval) + sizeof(index_t)).value();
  m.results = detail::ByteCount().add(tokens, sizeof(HeadResult)).value();
  if (cached) {
    const index_t layer = KeyValuePanels<T>::keys_size(slots, c.num_key_value_heads, c.head_dim) +
                          KeyValuePanels<T>::values_size(slots, c.num_key_value_heads, c.head_dim);
    m.kv_cache = detail::ByteCount()
                     .add(c.num_hidden_layers, checked_mul(layer, index_t{sizeof(T)}, "memory"))
                     .value();
  }
  return m;
}

/// Bytes of a pass over one sequence of `tokens` tokens.
template <class T = float>
ForwardMemory forward_memory(const LlamaConfig& c, index_t tokens, index_t workers, bool cached) {
  return forward_memory<T>(c, BatchShape::of(tokens), workers, cached);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
