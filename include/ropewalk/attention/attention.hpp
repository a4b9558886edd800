// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Blockwise attention on plain tensors: the entry point for those who have q, k and v.

#include <cmath>
#include <vector>

#include "ropewalk/attention/blockwise.hpp"
#include "ropewalk/core/executor.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

struct AttentionOptions {
  double softmax_scale = 0;  ///< multiplies q.k; 0 means 1 / sqrt(head_dim)
  Executor executor = {};
  Workspace* workspace = nullptr;  ///< keeps the memory from call to call, which resets it; or null
};

/// out = softmax(softmax_scale q k^T + mask) v per head, query head h reading key head h / (H / K).
/// Rotate q and k first (rope/rotate.hpp).
///
/// **Cost:** copies k and v into panels and the scaled q once; see attend() for the rest.
/// **Error:** 2e-6 of max |v| (tests/attention/test_attention.cpp).
/// **Source:** arXiv:2205.14135 (blocks), arXiv:2305.13245 (grouped heads).
/// \param q (queries, H, D) \param k, v (keys, K, D); keys - queries of them precede the queries
/// \param mask asked with absolute indices: query t is token keys - queries + t
/// \param out (queries, H, D) \param lse (H, queries) natural log, or empty
/// \throws Error(usage) when the shapes do not fit; Error(resource)
template <class Arch = simd::native, AttentionMask Mask>
void attention(HeadsView<const float> q, HeadsView<const float> k, HeadsView<const float> v,
               const Mask& mask, HeadsView<float> out, TensorView<float, 2> lse = {},
               const AttentionOptions& options = {}) {
  const index_t queries = q.extent(0), heads = q.extent(1), head_dim = q.extent(2);
  const index_t keys = k.extent(0), key_heads = k.extent(1), past = keys - queries;
  require(k.extents() == v.extents() && k.extent(2) == head_dim, "k and v of one shape");
  require(key_heads >= 1 && heads % key_heads == 0, "key/value heads that divide the query heads");
  require(past >= 0, "at least as many keys as queries");
  require(out.extents() == q.extents(), "out of q's shape");
  require(lse.empty() || (lse.extent(0) == heads && lse.extent(1) == queries),
          "lse of shape (heads, queries)");
  require(head_dim >= 1, "head_dim >= 1");
  require(q.stride(2) == 1 && k.stride(2) == 1 && v.stride(2) == 1 && out.stride(2) == 1,
          "adjacent channels (stride 1)");
  if (queries == 0) return;
  const BlockPlan plan = make_block_plan(mask, queries, {}, past);

  using Panels = KeyValuePanels<float>;
  Workspace own;
  Workspace& memory = options.workspace == nullptr ? own : *options.workspace;
  memory.reset();
  const auto take = [&](index_t count) { return memory.take<float>(count).data(); };
  const Panels panels{.keys = take(Panels::keys_size(plan.key_slots, key_heads, head_dim)),
                      .values = take(Panels::values_size(plan.key_slots, key_heads, head_dim)),
                      .slots = plan.key_slots,
                      .num_heads = key_heads,
                      .head_dim = head_dim};
  std::vector<index_t> slots(static_cast<std::size_t>(keys));
  for (index_t t = 0; t < keys; ++t) {
    slots[static_cast<std::size_t>(t)] =
        t < past ? t : plan.key_slot[static_cast<std::size_t>(t - past)];
  }
  const index_t key_tiles = (keys + key_panel - 1) / key_panel;
  for_each_in_runs(options.executor, key_tiles, [&](index_t tile, index_t) {
    const index_t first = tile * key_panel, count = std::min(key_panel, keys - first);
    const std::span tile_slots(slots.data() + first, static_cast<std::size_t>(count));
    for_each_slot_run(tile_slots, [&](index_t t, index_t slot, index_t run) {
      for (index_t h = 0; h < key_heads; ++h) {
        store_keys<Arch>(panels, h, slot, run, &k(first + t, h, 0), k.stride(0));
        store_values<Arch>(panels, h, slot, run, &v(first + t, h, 0), v.stride(0));
      }
    });
  });
  const double natural = options.softmax_scale != 0 ? options.softmax_scale
                                                    : 1 / std::sqrt(static_cast<double>(head_dim));
  using V = simd::Floats<Arch>;
  const auto scale = static_cast<float>(natural * log2_e);
  const index_t stride = spread_stride(heads * head_dim);
  const HeadsView<float> scaled(take(checked_mul(queries, stride, "queries")), q.extents(),
                                {stride, head_dim, 1});
  for_each_in_runs(options.executor, queries, [&](index_t t, index_t) {
    for (index_t h = 0; h < heads; ++h) {
      const float* from = &q(t, h, 0);
      float* to = &scaled(t, h, 0);
      for (index_t d = 0; d < head_dim; d += simd::lanes) {
        (V::load_part(from + d, head_dim - d) * V(scale)).store_part(to + d, head_dim - d);
      }
    }
  });

  const AttentionBranch<float> branch{scaled, panels};
  const AttentionCall<float> call{{&branch, 1}, &plan, out, lse};
  const index_t scratch_size = attention_scratch_size<float>(head_dim);
  float* scratch = take(checked_mul(options.executor.workers(), scratch_size, "scratch"));
  const AttentionTasks tasks(call, options.executor);
  for_each_dealt(options.executor, tasks.size(), [&](index_t i, index_t worker) {
    attend<Arch>(call, tasks[i], scratch + worker * scratch_size);
  });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
