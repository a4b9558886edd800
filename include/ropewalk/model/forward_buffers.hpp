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

/// Tokens that pass through a layer's products together, so that they stay in the L2 cache.
inline constexpr index_t token_tile = 96;

namespace detail {

/// Buffers of one pass, from the workspace. Row strides are padded to 16 floats, padding is zero.
struct ForwardBuffers {
  index_t hidden_stride = 0;
  float* hidden = nullptr;  // (tokens, C): the residual stream
  std::span<AttentionBranch> branches;
  float* rotated_keys = nullptr;  // of all keys of a layer, for a cache of unrotated ones
  index_t scratch_size = 0;       // floats per worker
  float* scratch = nullptr;       // (workers, scratch_size)
};

/// `slots`: key slots of the block plan; used where there is no cache.
inline ForwardBuffers take_buffers(const LlamaConfig& c, index_t tokens, index_t branches,
                                   index_t slots, const KvCache* cache, const Executor& executor,
                                   Workspace& workspace) {
  ForwardBuffers b;
  const bool cached = cache != nullptr;
  if (cached && cache->storage == KeyStorage::unrotated) {
    b.rotated_keys =
        workspace
            .take<float>(KeyValuePanels::keys_size(cache->slots, cache->num_heads, cache->head_dim))
            .data();
  }
  b.hidden_stride = round_up(c.hidden_size, lane_count);
  b.hidden = workspace.take<float>(checked_mul(tokens, b.hidden_stride, "hidden states")).data();
  b.branches = workspace.take<AttentionBranch>(branches);
  const index_t key_heads = c.num_key_value_heads;
  for (index_t i = 0; i < branches; ++i) {
    AttentionBranch branch;
    branch.queries = {workspace.take<float>(checked_mul(tokens, c.query_size(), "queries")).data(),
                      {tokens, c.num_attention_heads, c.head_dim}};
    if (!cached) {
      branch.panels = {
          .keys =
              workspace.take<float>(KeyValuePanels::keys_size(slots, key_heads, c.head_dim)).data(),
          .slots = slots,
          .num_heads = key_heads,
          .head_dim = c.head_dim};
    }
    b.branches[static_cast<std::size_t>(i)] = branch;
  }
  if (!cached) {
    b.branches[0].panels.values =
        workspace.take<float>(KeyValuePanels::values_size(slots, key_heads, c.head_dim)).data();
  }
  const index_t projected = round_up(std::max(c.query_size(), c.key_value_size()), lane_count);
  const index_t widest = std::max(b.hidden_stride + projected,
                                  b.hidden_stride + 2 * round_up(c.intermediate_size, lane_count));
  b.scratch_size = std::max({token_tile * widest, attention_scratch_size(c.head_dim),
                             head_rows * b.hidden_stride + head_scratch_size});
  b.scratch_size = round_up(b.scratch_size, lane_count);
  b.scratch =
      workspace.take<float>(checked_mul(executor.workers(), b.scratch_size, "scratch")).data();
  return b;
}

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
