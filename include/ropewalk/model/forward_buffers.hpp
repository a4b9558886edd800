// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The memory of one forward pass: what is taken from the workspace, in which order.

#include <algorithm>
#include <span>

#include "ropewalk/attention/blockwise.hpp"
#include "ropewalk/core/executor.hpp"
#include "ropewalk/core/tensor.hpp"
#include "ropewalk/model/head.hpp"
#include "ropewalk/model/kv_cache.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Tokens that pass through a layer's products together, so that they stay in the L2 cache. bf16
/// rows take half of it, and matrix tiles read weights faster than memory gives them.
template <class T>
inline constexpr index_t token_tile = std::is_same_v<T, bf16> ? 192 : 96;

namespace detail {

/// Tokens of a tile, at most `most` and a multiple of `unit`: such that every worker gets about as
/// many tokens as the others, smaller where that is a sixteenth less for the one that has most.
constexpr index_t balanced_tile(index_t tokens, index_t workers, index_t most, index_t unit) {
  const index_t rounds = std::max<index_t>((tokens + most * workers - 1) / (most * workers), 1);
  const index_t tiles = rounds * workers;
  const index_t even = std::clamp(round_up((tokens + tiles - 1) / tiles, unit), unit, most);
  const auto load = [&](index_t size) {
    return ((tokens + size - 1) / size + workers - 1) / workers * size;
  };
  index_t best = even;
  for (index_t size = even; size >= unit && 2 * size >= even; size -= unit) {
    if (16 * load(size) < 15 * load(best)) best = size;
  }
  return best;
}
/// Of a multiple of a register tile's rows, or for bf16 of a block of matrix tiles'.
template <class T>
constexpr index_t balanced_tile(index_t tokens, index_t workers, index_t most = token_tile<T>) {
  return balanced_tile(tokens, workers, most, std::is_same_v<T, bf16> ? simd::tile_block : 6);
}

/// Buffers of one pass, from the workspace. Row strides are as spread_stride(), and rows padded
/// with zeros to 16 elements. Scratch is counted in floats, also where it holds bf16.
template <class T>
struct ForwardBuffers {
  index_t hidden_stride = 0;
  float* hidden = nullptr;  // (tokens, C): the residual stream
  std::span<AttentionBranch<T>> branches;
  T* rotated_keys = nullptr;  // of all keys of a layer, for a cache of unrotated ones
  index_t scratch_size = 0;   // floats per worker
  float* scratch = nullptr;   // (workers, scratch_size)
};

/// `slots`: key slots of the block plan; used where there is no cache.
template <class T>
ForwardBuffers<T> take_buffers(const LlamaConfig& c, index_t tokens, index_t branches,
                               index_t slots, const KvCache<T>* cache, const Executor& executor,
                               Workspace& workspace) {
  using Panels = KeyValuePanels<T>;
  ForwardBuffers<T> b;
  const bool cached = cache != nullptr;
  if (cached && cache->storage == KeyStorage::unrotated) {
    b.rotated_keys =
        workspace
            .template take<T>(Panels::keys_size(cache->slots, cache->num_heads, cache->head_dim))
            .data();
  }
  b.hidden_stride = spread_stride(c.hidden_size);
  b.hidden = workspace.take<float>(checked_mul(tokens, b.hidden_stride, "hidden states")).data();
  b.branches = workspace.template take<AttentionBranch<T>>(branches);
  const index_t key_heads = c.num_key_value_heads;
  for (index_t i = 0; i < branches; ++i) {
    AttentionBranch<T> branch;
    const index_t stride = spread_stride<T>(c.query_size());
    branch.queries = {workspace.template take<T>(checked_mul(tokens, stride, "queries")).data(),
                      {tokens, c.num_attention_heads, c.head_dim},
                      {stride, c.head_dim, 1}};
    if (!cached) {
      branch.panels = {
          .keys =
              workspace.template take<T>(Panels::keys_size(slots, key_heads, c.head_dim)).data(),
          .slots = slots,
          .num_heads = key_heads,
          .head_dim = c.head_dim};
    }
    b.branches[static_cast<std::size_t>(i)] = branch;
  }
  if (!cached) {
    b.branches[0].panels.values =
        workspace.template take<T>(Panels::values_size(slots, key_heads, c.head_dim)).data();
  }
  const index_t projected = std::max(c.query_size(), c.key_value_size());
  const index_t widest =
      b.hidden_stride + spread_stride(std::max(projected, index_t{c.intermediate_size}));
  b.scratch_size = std::max(
      {token_tile<T> * widest, attention_scratch_size<T>(c.head_dim), head_rows * b.hidden_stride});
  b.scratch_size = round_up(b.scratch_size, lane_count);
  b.scratch =
      workspace.take<float>(checked_mul(executor.workers(), b.scratch_size, "scratch")).data();
  return b;
}

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
