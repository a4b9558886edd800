// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The forward pass of a Llama: tokens in, per-token loss and prediction out.

#include <cmath>
#include <span>
#include <string>
#include <type_traits>

#include "ropewalk/model/forward_buffers.hpp"
#include "ropewalk/model/kernel_table.hpp"
#include "ropewalk/model/kv_cache.hpp"
#include "ropewalk/model/norm_head.hpp"
#include "ropewalk/model/token_batch.hpp"
#include "ropewalk/model/weights.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A model ready to run: immutable, shared by any number of passes.
template <class T>
struct Llama {
  LlamaConfig config;
  LlamaWeights<T> weights;
  PackedMatrix<T> normalized_head;  ///< (V, C) rows of norm 1; only where config.norm_head

  const PackedMatrix<T>& head() const {
    return config.norm_head ? normalized_head : weights.head();
  }
};

/// Checks the config and prepares what does not change from pass to pass.
/// \throws Error(config | limit); Error(numeric) for a zero row under norm_head
template <class T>
Llama<T> make_llama(LlamaConfig config, LlamaWeights<T> weights) {
  config.check();
  require(static_cast<index_t>(weights.layers.size()) == config.num_hidden_layers,
          "weights of num_hidden_layers layers");
  Llama<T> model{std::move(config), std::move(weights), {}};
  if (!model.config.norm_head) return model;
  const PackedMatrix<T>& head = model.weights.head();
  model.normalized_head = PackedMatrix<T>(head.outputs(), head.inputs());
  for (index_t j = 0; j < head.num_panels(); ++j) normalize_rows(head, model.normalized_head, j);
  return model;
}

namespace detail {

/// Rotates one head as the row of `token` says; null rows leave it as it is.
template <class T>
void rotate_by_row(const LlamaConfig& c, const KernelTable<T>& kernels, const RotaryRows* rotary,
                   index_t token, float* head) {
  const HeadTurn turn = turn_of(rotary, token);
  kernels.rotate_head(c.pair_layout, head + turn.first_channel, turn.cos, turn.sin, turn.pairs,
                      Rotation::forward);
}

/// What a layer multiplies rotated queries with, for a base-2 softmax.
inline float query_factor(const LlamaConfig& c, const LayerPlan& plan) {
  return static_cast<float>(plan.logit_scale * log2_e / std::sqrt(static_cast<double>(c.head_dim)));
}

/// The finisher of the query/key/value products of a tile of tokens: rotates the staged heads and
/// hands them on, keys and values into panels, queries (scaled for a base-2 softmax) into their
/// buffer.
template <class T>
void project_tile(const LlamaConfig& c, const LlamaLayer<T>& layer, const LayerPlan& plan,
                  const KernelTable<T>& kernels, const ForwardBuffers<T>& b, Interval rows,
                  float* scratch) {
  const index_t count = rows.size();
  T* normed = reinterpret_cast<T*>(scratch);
  const index_t normed_stride = spread_stride<T>(c.hidden_size);
  float* staged = scratch + count * b.hidden_stride;
  kernels.rmsnorm(b.hidden + rows.begin * b.hidden_stride, b.hidden_stride, count, c.hidden_size,
                  layer.input_layernorm.data(), c.rms_norm_eps, 1.0f, normed, normed_stride);
  const float scale = query_factor(c, plan);
  for (std::size_t i = 0; i < plan.branches.size(); ++i) {
    const index_t stride = spread_stride(c.query_size());
    kernels.multiply(normed, normed_stride, count, layer.q_proj, staged, stride);
    for (index_t t = 0; t < count; ++t) {
      const auto token = static_cast<std::size_t>(rows.begin + t);
      const float row_scale = plan.query_scale.empty() ? scale : scale * plan.query_scale[token];
      const HeadTurn turn = turn_of(plan.branches[i].queries, rows.begin + t);
      for (index_t h = 0; h < c.num_attention_heads; ++h) {
        kernels.rotate_head_to(c.pair_layout, staged + t * stride + h * c.head_dim, c.head_dim,
                               turn, row_scale,
                               const_cast<T*>(&b.branches[i].queries(rows.begin + t, h, 0)));
      }
    }
  }
  const index_t stride = spread_stride(c.key_value_size());
  const std::span<const index_t> slots =
      std::span(plan.blocks->key_slot)
          .subspan(static_cast<std::size_t>(rows.begin), static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < plan.branches.size(); ++i) {
    kernels.multiply(normed, normed_stride, count, layer.k_proj, staged, stride);
    if (b.rotated_keys == nullptr) {
      for (index_t t = 0; t < count; ++t) {
        for (index_t h = 0; h < c.num_key_value_heads; ++h) {
          rotate_by_row(c, kernels, plan.branches[i].keys, rows.begin + t,
                        staged + t * stride + h * c.head_dim);
        }
      }
    }
    for_each_slot_run(slots, [&](index_t first, index_t slot, index_t run) {
      for (index_t h = 0; h < c.num_key_value_heads; ++h) {
        kernels.store_keys(b.branches[i].panels, h, slot, run,
                           staged + first * stride + h * c.head_dim, stride);
      }
    });
  }
  kernels.multiply(normed, normed_stride, count, layer.v_proj, staged, stride);
  for_each_slot_run(slots, [&](index_t first, index_t slot, index_t run) {
    for (index_t h = 0; h < c.num_key_value_heads; ++h) {
      kernels.store_values(b.branches[0].panels, h, slot, run,
                           staged + first * stride + h * c.head_dim, stride);
    }
  });
  if (depth_group<T> == 1) return;
  for (const Segment& s : plan.blocks->segments) {  // whose last token is in this tile
    if (s.queries.end <= rows.begin || s.queries.end > rows.end) continue;
    for (index_t h = 0; h < c.num_key_value_heads; ++h) {
      b.branches[0].panels.end_values(h, s.key_base + s.num_keys());
    }
  }
}

/// Rotates up to 64 cached keys of a head, those from slot `first` to `end`, into `out`.
template <class T>
void rotate_key_panel(const LlamaConfig& c, const KernelTable<T>& kernels, const RotaryRows* rows,
                      const KeyValuePanels<T>& from, const KeyValuePanels<T>& out, index_t head,
                      Interval slots, float* scratch) {
  for (index_t slot = slots.begin; slot < slots.end; ++slot) {
    load_key(from, head, slot, scratch);
    rotate_by_row(c, kernels, rows, slot, scratch);
    out.store_key(head, slot, scratch);
  }
}

/// Output projection, feed-forward network and both residual additions of a tile of tokens.
template <class T>
void feed_forward_tile(const LlamaConfig& c, const LlamaLayer<T>& layer,
                       const KernelTable<T>& kernels, const ForwardBuffers<T>& b, Interval rows,
                       float* scratch) {
  const index_t count = rows.size();
  float* hidden = b.hidden + rows.begin * b.hidden_stride;
  const auto& attended = b.branches[0].queries;  // attention's output took their place
  kernels.multiply_add(&attended(rows.begin, 0, 0), attended.stride(0), count, layer.o_proj, hidden,
                       hidden, b.hidden_stride);
  T* normed = reinterpret_cast<T*>(scratch);
  T* fed = reinterpret_cast<T*>(scratch + count * b.hidden_stride);
  const index_t normed_stride = spread_stride<T>(c.hidden_size);
  const index_t stride = spread_stride<T>(c.intermediate_size);
  kernels.rmsnorm(hidden, b.hidden_stride, count, c.hidden_size,
                  layer.post_attention_layernorm.data(), c.rms_norm_eps, 1.0f, normed,
                  normed_stride);
  kernels.multiply_swiglu(normed, normed_stride, count, layer.gate_proj, layer.up_proj, fed,
                          stride);
  kernels.multiply_add(fed, stride, count, layer.down_proj, hidden, hidden, b.hidden_stride);
}

/// Final norm of a token, in the units of the head's base-2 softmax.
template <class T>
void normed_row(const Llama<T>& model, const KernelTable<T>& kernels, const ForwardBuffers<T>& b,
                index_t token, T* row) {
  const LlamaConfig& c = model.config;
  kernels.rmsnorm(b.hidden + token * b.hidden_stride, b.hidden_stride, 1, c.hidden_size,
                  model.weights.norm.data(), c.rms_norm_eps, static_cast<float>(log2_e), row,
                  spread_stride<T>(c.hidden_size));
}

/// Final norm and head for up to head_rows scored tokens.
template <class T>
void score_tile(const Llama<T>& model, const TokenBatch& batch, const KernelTable<T>& kernels,
                const ForwardBuffers<T>& b, std::span<const index_t> tokens,
                std::span<HeadResult> results, float* scratch) {
  TokenId targets[head_rows];
  HeadResult found[head_rows];
  T* normed = reinterpret_cast<T*>(scratch);
  const index_t stride = spread_stride<T>(model.config.hidden_size);
  const auto count = static_cast<index_t>(tokens.size());
  for (index_t r = 0; r < count; ++r) {
    const index_t token = tokens[static_cast<std::size_t>(r)];
    normed_row(model, kernels, b, token, normed + r * stride);
    targets[r] = batch.targets[static_cast<std::size_t>(token)];
  }
  kernels.head_nll(normed, stride, {targets, tokens.size()}, model.head(), {found, tokens.size()});
  for (index_t r = 0; r < count; ++r) {
    results[static_cast<std::size_t>(tokens[static_cast<std::size_t>(r)])] = found[r];
  }
}

template <class T>
void check_forward(const Llama<T>& model, std::span<const LayerPlan> layers,
                   const TokenBatch& batch, const KvCache<T>* cache, std::size_t num_results) {
  const std::size_t n = batch.tokens.size();
  require(n >= 1, "at least one token");
  require(batch.targets.size() == n && num_results == n, "a target and a result per token");
  require(layers.size() == 1 || layers.size() == model.weights.layers.size(),
          "one layer plan, or one per layer");
  for (const LayerPlan& p : layers) {
    require(p.blocks != nullptr && p.blocks->key_slot.size() == n, "block plans of this batch");
    require(!p.branches.empty(), "at least one branch");
    require(p.branches.size() == layers[0].branches.size(), "as many branches in every layer");
    require(p.blocks->key_slots == layers[0].blocks->key_slots, "the same segments in every layer");
    require(p.query_scale.empty() || p.query_scale.size() == n, "a query scale per token, or none");
    const std::size_t keys_before = cache != nullptr && cache->storage == KeyStorage::unrotated
                                        ? static_cast<std::size_t>(cache->length)
                                        : 0;
    for (const RotationPair& r : p.branches) {
      const auto fits = [&](const RotaryRows* rows, std::size_t count) {
        return rows == nullptr ||
               (rows->row.size() == count &&
                rows->first_channel + 2 * rows->num_pairs <= model.config.head_dim);
      };
      require(fits(r.queries, n), "rotary rows of this batch, no wider than a head");
      require(fits(r.keys, n + keys_before),
              "rotary rows of this batch's keys (after those of all unrotated cached keys), no "
              "wider than a head");
    }
    if (cache == nullptr) continue;
    require(p.branches.size() == 1 && p.blocks->segments.size() == 1, "one segment with a cache");
    require(p.blocks->segments[0].past == cache->length, "a block plan that continues the cache");
    require(cache->length + static_cast<index_t>(n) <= cache->slots, "room in the cache");
    require(cache->length == 0 || cache->storage != KeyStorage::rotated ||
                cache->rope_hash == layers[0].rope_hash,
            "the frequencies that the cached keys were rotated with");
  }
  const auto check_id = [&](TokenId id, std::size_t t, const char* what) {
    if (id >= 0 && id < model.config.vocab_size) return;
    fail({.kind = ErrorClass::usage,
          .where = "position " + std::to_string(t),
          .field = what,
          .found = std::to_string(id),
          .expected = "an id in [0, " + std::to_string(model.config.vocab_size) + ")"});
  };
  for (std::size_t t = 0; t < n; ++t) {
    check_id(batch.tokens[t], t, "token");
    if (batch.targets[t] != not_scored && batch.targets[t] != predict_only) {
      check_id(batch.targets[t], t, "target");
    }
  }
}

template <class T>
void check_logits(const Llama<T>& model, const TokenBatch& batch, const LogitsRequest& request) {
  require(request.tokens.empty() ||
              (request.logits.extent(0) == static_cast<index_t>(request.tokens.size()) &&
               request.logits.extent(1) == model.config.vocab_size),
          "a row of vocab_size logits for each token asked for");
  for (const index_t t : request.tokens) {
    require(t >= 0 && t < static_cast<index_t>(batch.tokens.size()),
            "logits of tokens in the batch");
  }
}

}  // namespace detail

/// One pass over the batch. results[t] is written for every t whose target is not not_scored.
/// With a cache, keys and values of the batch are appended to it.
///
/// Bits do not depend on the number of workers, on the kernels' instruction set (with fma), on what
/// else is in the batch, or on what follows a token (docs/design.md, canonical arithmetic).
/// **Cost:** memory O(tokens (2 C + 3 H D)) plus a fixed amount per worker, from the workspace,
/// which is reset first.
/// \param layers one plan for all layers, or one per layer
/// \param logits rows of logits to be written too; the default writes none
/// \throws Error(usage) for shapes or ids that do not fit
template <class T>
void forward(const Llama<T>& model, std::span<const LayerPlan> layers, const TokenBatch& batch,
             std::type_identity_t<KvCache<T>>* cache, const KernelTable<T>& kernels,
             const Executor& executor, Workspace& workspace, std::span<HeadResult> results,
             const LogitsRequest& logits = {}) {
  detail::check_forward(model, layers, batch, cache, results.size());
  detail::check_logits(model, batch, logits);
  const LlamaConfig& c = model.config;
  const auto n = static_cast<index_t>(batch.tokens.size());
  workspace.reset();
  const detail::ForwardBuffers<T> b =
      detail::take_buffers<T>(c, n, static_cast<index_t>(layers[0].branches.size()),
                              layers[0].blocks->key_slots, cache, executor, workspace);
  const index_t tile_rows = detail::balanced_tile<T>(n, executor.workers());
  const index_t tiles = (n + tile_rows - 1) / tile_rows;
  const auto rows_of = [n, tile_rows](index_t tile) {
    return Interval{tile * tile_rows, std::min(n, (tile + 1) * tile_rows)};
  };
  const auto scratch_of = [&b](index_t worker) { return b.scratch + worker * b.scratch_size; };

  for_each_in_runs(executor, n, [&](index_t t, index_t) {
    float* row = b.hidden + t * b.hidden_stride;
    std::fill(row + c.hidden_size, row + b.hidden_stride, 0.0f);
    model.weights.embed_tokens.get_row(batch.tokens[static_cast<std::size_t>(t)],
                                       std::span(row, static_cast<std::size_t>(c.hidden_size)));
  });
  for (std::size_t l = 0; l < model.weights.layers.size(); ++l) {
    const LlamaLayer<T>& layer = model.weights.layers[l];
    const LayerPlan& plan = layers[layers.size() == 1 ? 0 : l];
    if (cache != nullptr) b.branches[0].panels = cache->panels(static_cast<index_t>(l));
    for_each_in_runs(executor, tiles, [&](index_t tile, index_t worker) {
      detail::project_tile(c, layer, plan, kernels, b, rows_of(tile), scratch_of(worker));
    });
    if (b.rotated_keys != nullptr && plan.branches[0].keys != nullptr) {
      KeyValuePanels<T>& panels = b.branches[0].panels;
      KeyValuePanels<T> rotated = panels;
      rotated.keys = b.rotated_keys;
      const index_t total = cache->length + n;
      const index_t per_head = (total + panel_width - 1) / panel_width;
      for_each_in_runs(executor, per_head * panels.num_heads, [&](index_t task, index_t worker) {
        const index_t first = task % per_head * panel_width;
        detail::rotate_key_panel(c, kernels, plan.branches[0].keys, panels, rotated,
                                 task / per_head, {first, std::min(first + panel_width, total)},
                                 scratch_of(worker));
      });
      panels = rotated;
    }
    const auto& queries = b.branches[0].queries;
    const AttentionCall<T> call{
        .branches = b.branches,
        .plan = plan.blocks,
        .output = {const_cast<T*>(queries.data()), queries.extents(), queries.strides()},
        .lse = {}};
    const AttentionTasks tasks(call, executor);
    for_each_dealt(executor, tasks.size(), [&](index_t i, index_t worker) {
      kernels.attend(call, tasks[i], scratch_of(worker));
    });
    for_each_in_runs(executor, tiles, [&](index_t tile, index_t worker) {
      detail::feed_forward_tile(c, layer, kernels, b, rows_of(tile), scratch_of(worker));
    });
  }
  const std::span<index_t> scored = workspace.take<index_t>(n);
  std::size_t count = 0;
  for (index_t t = 0; t < n; ++t) {
    if (batch.targets[static_cast<std::size_t>(t)] != not_scored) scored[count++] = t;
  }
  const auto scored_rows = static_cast<index_t>(count);
  const index_t head_tile = detail::balanced_tile<T>(scored_rows, executor.workers(), head_rows);
  const index_t head_tiles = (scored_rows + head_tile - 1) / head_tile;
  for_each_in_runs(executor, head_tiles, [&](index_t tile, index_t worker) {
    const auto first = static_cast<std::size_t>(tile * head_tile);
    detail::score_tile(
        model, batch, kernels, b,
        scored.subspan(first, std::min(static_cast<std::size_t>(head_tile), count - first)),
        results, scratch_of(worker));
  });
  const index_t logits_stride = round_up(c.vocab_size, lane_count);
  for (std::size_t r = 0; r < logits.tokens.size(); ++r) {
    T* row = workspace.template take<T>(spread_stride<T>(c.hidden_size)).data();
    float* scores = workspace.take<float>(logits_stride).data();
    detail::normed_row(model, kernels, b, logits.tokens[r], row);
    kernels.multiply(row, 0, 1, model.head(), scores, logits_stride);
    for (index_t v = 0; v < c.vocab_size; ++v) {
      logits.logits(static_cast<index_t>(r), v) = static_cast<double>(scores[v]) * ln_2;
    }
  }
  if (cache != nullptr) {
    cache->length += n;
    cache->rope_hash = layers[0].rope_hash;
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
