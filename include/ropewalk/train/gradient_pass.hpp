// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A pass of training over a batch: forward with its activations kept, and its way back.

#include <algorithm>
#include <vector>

#include "ropewalk/train/gradient_buffers.hpp"
#include "ropewalk/train/token_products.hpp"
#include "ropewalk/train/trainable_llama.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// A pass over a batch: layers forward, the head, and layers backward. Operands of products are
/// stored as T.
template <class T>
class GradientPass {
 public:
  GradientPass(const TrainableLlama<T>& trainable, std::span<const LayerPlan> layers,
               const TokenBatch& batch, const TrainingKernels<T>& kernels, const Executor& executor,
               LlamaGradients& gradients, const GradientBuffers<T>& buffers, index_t scored)
      : trainable_(trainable),
        model_(trainable.model),
        c_(trainable.model.config),
        plans_(layers),
        batch_(batch),
        kernels_(kernels),
        executor_(executor),
        products_(kernels, executor),
        gradients_(gradients),
        b_(buffers),
        tokens_(static_cast<index_t>(batch.tokens.size())),
        scored_(scored) {
    std::vector<index_t> ends, scored_ends;
    for (const Segment& s : layers[0].blocks->segments) {
      ends.push_back(s.queries.end);
      const index_t* end = std::lower_bound(b_.scored, b_.scored + scored_, s.queries.end);
      scored_ends.push_back(end - b_.scored);
    }
    token_runs_ = runs_of_groups(ends, kernels.token_group);
    scored_runs_ = runs_of_groups(scored_ends, kernels.token_group);
  }

  void run(bool recompute, std::span<HeadResult> results) {
    const auto layers = static_cast<index_t>(b_.layers.size());
    embed();
    for (index_t l = 0; l < layers; ++l) forward_layer(l);
    head(results);
    for (index_t l = layers - 1; l >= 0; --l) {
      if (recompute && l + 1 < layers) forward_layer(l);
      backward_layer(l);
    }
    embed_gradient();
  }

 private:
  float* scratch(index_t worker) const { return b_.scratch + worker * b_.scratch_size; }
  const LayerPlan& plan(index_t l) const {
    return plans_[plans_.size() == 1 ? 0 : static_cast<std::size_t>(l)];
  }

  void embed() const {
    float* hidden = b_.layers.empty() ? b_.last_hidden : b_.layers[0].projected.hidden;
    for_each_in_runs(executor_, tokens_, [&](index_t t, index_t) {
      float* row = hidden + t * b_.hidden_stride;
      std::fill(row + c_.hidden_size, row + b_.hidden_stride, 0.0f);
      model_.weights.embed_tokens.get_row(batch_.tokens[static_cast<std::size_t>(t)],
                                          std::span(row, static_cast<std::size_t>(c_.hidden_size)));
    });
  }

  void forward_layer(index_t l) const {
    const LayerActivations<T>& a = b_.layers[static_cast<std::size_t>(l)];
    const LlamaLayer<T>& layer = trainable_.layer(l);
    const float* norm =
        model_.weights.layers[static_cast<std::size_t>(l)].post_attention_layernorm.data();
    products_.for_each_tile(tokens_, [&](Interval rows, index_t worker) {
      project_tile(c_, layer, plan(l), kernels_.forward, a.projected, rows, scratch(worker));
    });
    const AttentionCall<T> call{
        .branches = a.projected.branches,
        .plan = plan(l).blocks,
        .output = heads(a.attended, c_.num_attention_heads, b_.attended_stride),
        .lse = {a.lse, {c_.num_attention_heads, tokens_}}};
    const AttentionTasks tasks(call, executor_);
    for_each_dealt(executor_, tasks.size(), [&](index_t i, index_t worker) {
      kernels_.forward.attend(call, tasks[i], scratch(worker));
    });
    float* output = static_cast<std::size_t>(l) + 1 < b_.layers.size()
                        ? b_.layers[static_cast<std::size_t>(l) + 1].projected.hidden
                        : b_.last_hidden;
    products_.for_each_tile(tokens_, [&](Interval rows, index_t worker) {
      const index_t first = rows.begin * b_.hidden_stride;
      const index_t count = rows.size();
      float* middle = a.middle + first;
      kernels_.forward.multiply_add(a.attended + rows.begin * b_.attended_stride,
                                    b_.attended_stride, count, layer.o_proj,
                                    a.projected.hidden + first, middle, b_.hidden_stride);
      T* normed = reinterpret_cast<T*>(scratch(worker));
      T* fed = reinterpret_cast<T*>(scratch(worker) + head_rows * b_.hidden_stride);
      float* gate = a.gate + rows.begin * b_.fed_stride;
      float* up = a.up + rows.begin * b_.fed_stride;
      kernels_.forward.rmsnorm(middle, b_.hidden_stride, count, c_.hidden_size, norm,
                               c_.rms_norm_eps, 1.0f, normed, b_.normed_stride);
      kernels_.forward.multiply(normed, b_.normed_stride, count, layer.gate_proj, gate,
                                b_.fed_stride);
      kernels_.forward.multiply(normed, b_.normed_stride, count, layer.up_proj, up, b_.fed_stride);
      kernels_.swiglu(gate, up, b_.fed_stride, count, c_.intermediate_size, fed, b_.product_stride);
      kernels_.forward.multiply_add(fed, b_.product_stride, count, layer.down_proj, middle,
                                    output + first, b_.hidden_stride);
    });
  }

  /// Final norm, loss, and the gradients of both, chunk by chunk of the vocabulary; d_hidden is
  /// that of the last layer's output afterwards.
  void head(std::span<HeadResult> results) {
    const index_t stride = b_.hidden_stride;
    const float* norm = model_.weights.norm.data();
    products_.for_each_tile(scored_, [&](Interval rows, index_t) {
      float* hidden = b_.gathered + rows.begin * stride;
      HeadResult found[head_rows];
      for (index_t r = 0; r < rows.size(); ++r) {
        std::copy_n(b_.last_hidden + b_.scored[rows.begin + r] * stride, stride,
                    hidden + r * stride);
      }
      const auto norm_to = [&](T* out, double factor) {
        kernels_.forward.rmsnorm(hidden, stride, rows.size(), c_.hidden_size, norm, c_.rms_norm_eps,
                                 static_cast<float>(factor), out + rows.begin * b_.normed_stride,
                                 b_.normed_stride);
      };
      norm_to(b_.normed, 1);
      norm_to(b_.scaled, log2_e);
      const auto count = static_cast<std::size_t>(rows.size());
      kernels_.head_nll_lse(b_.scaled + rows.begin * b_.normed_stride, b_.normed_stride,
                            {b_.targets + rows.begin, count}, trainable_.head(), {found, count},
                            b_.lse + rows.begin);
      for (index_t r = 0; r < rows.size(); ++r) {
        results[static_cast<std::size_t>(b_.scored[rows.begin + r])] = found[r];
      }
      std::fill_n(b_.d_normed + rows.begin * stride, rows.size() * stride, 0.0f);
    });
    PackedMatrix<float>& d_head =
        c_.tie_word_embeddings ? gradients_.weights.embed_tokens : gradients_.weights.lm_head;
    for (index_t first = 0; first < c_.vocab_size; first += head_chunk) {
      const Interval chunk{first, std::min(first + head_chunk, c_.vocab_size)};
      products_.for_each_tile(scored_, [&](Interval rows, index_t worker) {
        float* d_logits = b_.d_logits + rows.begin * b_.logits_stride;
        kernels_.head_gradient(b_.scaled + rows.begin * b_.normed_stride, b_.normed_stride,
                               {b_.targets + rows.begin, static_cast<std::size_t>(rows.size())},
                               trainable_.head(), b_.lse + rows.begin, b_.weights + rows.begin,
                               chunk, d_logits, b_.logits_stride);
        const OperandRows<T> d = products_.operand(d_logits, b_.logits_stride, rows.size(),
                                                   chunk.size(), scratch(worker));
        kernels_.multiply_add_inputs(d.data, d.ld, rows.size(), trainable_.head_transpose, chunk,
                                     b_.d_normed + rows.begin * stride, stride);
      });
      const index_t panels = (chunk.size() + panel_width - 1) / panel_width;
      products_.add_tasks({b_.normed, b_.normed_stride}, b_.d_logits, b_.logits_stride, d_head,
                          {first / panel_width, first / panel_width + panels});
      products_.add_weight_gradients(scored_runs_);
    }
    products_.for_each_tile(tokens_, [&](Interval rows, index_t) {
      std::fill_n(b_.d_hidden + rows.begin * stride, rows.size() * stride, 0.0f);
    });
    products_.for_each_tile(scored_, [&](Interval rows, index_t) {
      for (index_t r = rows.begin; r < rows.end; ++r) {
        float* d = b_.d_hidden + b_.scored[r] * stride;
        kernels_.rmsnorm_gradient(b_.gathered + r * stride, stride, 1, c_.hidden_size, norm,
                                  c_.rms_norm_eps, b_.d_normed + r * stride, stride, d, stride, d,
                                  stride, b_.inverse_rms + r);
      }
    });
    add_norm_gradient(b_.gathered, scored_, gradients_.weights.norm);
  }

  void add_norm_gradient(const float* x, index_t rows, Buffer<float>& gradient) const {
    const index_t blocks = (c_.hidden_size + panel_width - 1) / panel_width;
    for_each_in_runs(executor_, blocks, [&](index_t i, index_t) {
      kernels_.norm_weight_gradient(
          x, b_.hidden_stride, b_.d_normed, b_.hidden_stride, b_.inverse_rms, rows,
          {i * panel_width, std::min((i + 1) * panel_width, c_.hidden_size)}, gradient.data());
    });
  }

  void backward_layer(index_t l) {
    const LayerActivations<T>& a = b_.layers[static_cast<std::size_t>(l)];
    LlamaLayer<float>& d_layer = gradients_.weights.layers[static_cast<std::size_t>(l)];
    products_.for_each_tile(tokens_, [&](Interval rows, index_t worker) {
      feed_forward_gradient_tile(l, a, rows, scratch(worker));
    });
    const OperandRows<T> normed{b_.normed, b_.normed_stride};
    products_.add_tasks({b_.fed, b_.product_stride}, b_.d_hidden, b_.hidden_stride,
                        d_layer.down_proj);
    products_.add_tasks(normed, a.gate, b_.fed_stride, d_layer.gate_proj);
    products_.add_tasks(normed, a.up, b_.fed_stride, d_layer.up_proj);
    products_.add_tasks({a.attended, b_.attended_stride}, b_.d_middle, b_.hidden_stride,
                        d_layer.o_proj);
    products_.add_weight_gradients(token_runs_);
    add_norm_gradient(a.middle, tokens_, d_layer.post_attention_layernorm);
    attention_gradient(l, a);
    products_.for_each_tile(tokens_, [&](Interval rows, index_t worker) {
      projection_gradient_tile(l, a, rows, scratch(worker));
    });
    products_.add_tasks(normed, b_.d_queries[0], b_.heads_stride, d_layer.q_proj);
    products_.add_tasks(normed, b_.d_keys[0], b_.key_heads_stride, d_layer.k_proj);
    products_.add_tasks(normed, b_.d_values, b_.key_heads_stride, d_layer.v_proj);
    products_.add_weight_gradients(token_runs_);
    add_norm_gradient(a.projected.hidden, tokens_, d_layer.input_layernorm);
  }

  /// From d_hidden to d_middle, d_attended, and the gradients of gate and up.
  void feed_forward_gradient_tile(index_t l, const LayerActivations<T>& a, Interval rows,
                                  float* rounded) const {
    const LayerTransposes<T>& w = trainable_.transposes[static_cast<std::size_t>(l)];
    const index_t count = rows.size(), stride = b_.hidden_stride, at = rows.begin * stride;
    const index_t fed_at = rows.begin * b_.fed_stride;
    const float* norm =
        model_.weights.layers[static_cast<std::size_t>(l)].post_attention_layernorm.data();
    float* d_fed = rounded + head_rows * stride;
    kernels_.forward.rmsnorm(a.middle + at, stride, count, c_.hidden_size, norm, c_.rms_norm_eps,
                             1.0f, b_.normed + rows.begin * b_.normed_stride, b_.normed_stride);
    products_.multiply(b_.d_hidden + at, stride, count, w.down_proj, d_fed, b_.fed_stride, rounded);
    kernels_.swiglu_gradient(a.gate + fed_at, a.up + fed_at, b_.fed_stride, count,
                             c_.intermediate_size, d_fed, b_.fed_stride,
                             b_.fed + rows.begin * b_.product_stride, b_.product_stride);
    products_.multiply(a.gate + fed_at, b_.fed_stride, count, w.gate_proj, b_.d_normed + at, stride,
                       d_fed);
    products_.add_product(a.up + fed_at, b_.fed_stride, count, w.up_proj, b_.d_normed + at,
                          b_.d_normed + at, stride, d_fed);
    kernels_.rmsnorm_gradient(a.middle + at, stride, count, c_.hidden_size, norm, c_.rms_norm_eps,
                              b_.d_normed + at, stride, b_.d_hidden + at, stride, b_.d_middle + at,
                              stride, b_.inverse_rms + rows.begin);
    products_.multiply(b_.d_middle + at, stride, count, w.o_proj,
                       b_.d_attended + rows.begin * b_.heads_stride, b_.heads_stride, rounded);
  }

  template <class E>
  HeadsView<E> heads(E* data, index_t count, index_t stride) const {
    return {data, {tokens_, count, c_.head_dim}, {stride, c_.head_dim, 1}};
  }

  /// From d_attended to the gradients of rotated queries and keys, and of values.
  void attention_gradient(index_t l, const LayerActivations<T>& a) {
    const BlockPlan& blocks = *plan(l).blocks;
    branches_.clear();
    for (std::size_t i = 0; i < a.projected.branches.size(); ++i) {
      const AttentionBranch<T>& branch = a.projected.branches[i];
      KeyValuePanels<T> keys = branch.panels;
      keys.values = b_.key_rows[i].values;
      branches_.push_back(
          {.queries = branch.queries,
           .keys = keys,
           .d_queries = heads(b_.d_queries[i], c_.num_attention_heads, b_.heads_stride),
           .d_keys = heads(b_.d_keys[i], c_.num_key_value_heads, b_.key_heads_stride)});
    }
    const AttentionGradientCall<T> call{
        .branches = branches_,
        .values = b_.value_columns,
        .plan = &blocks,
        .output = heads(a.attended, c_.num_attention_heads, b_.attended_stride),
        .lse = {a.lse, {c_.num_attention_heads, tokens_}},
        .d_output = heads(b_.d_attended, c_.num_attention_heads, b_.heads_stride),
        .d_values = heads(b_.d_values, c_.num_key_value_heads, b_.key_heads_stride)};
    const auto segments = static_cast<index_t>(blocks.segments.size());
    for_each_dealt(executor_, segments * c_.num_key_value_heads, [&](index_t task, index_t worker) {
      const index_t segment = task / c_.num_key_value_heads, head = task % c_.num_key_value_heads;
      const Segment& s = blocks.segments[static_cast<std::size_t>(segment)];
      for (index_t first = 0; first < s.queries.size(); first += panel_width) {
        const index_t count = std::min(panel_width, s.queries.size() - first);
        for (std::size_t i = 0; i < branches_.size(); ++i) {
          KeyValuePanels<T> from = branches_[i].keys;
          from.values = a.projected.branches[0].panels.values;
          kernels_.transpose_panels(from, head, s.key_base + first, count, branches_[i].keys,
                                    b_.value_columns);
        }
      }
      kernels_.attend_backward(call, segment, head, scratch(worker));
    });
  }

  /// Turns the rows of `heads` heads back, each multiplied by `factor` first, and adds them to
  /// `sum` unless that is the same memory.
  void turn_back(const RotaryRows* rotary, index_t token, float* row, index_t heads, float factor,
                 float* sum) const {
    const HeadTurn turn = turn_of(rotary, token);
    const index_t size = heads * c_.head_dim;
    if (factor != 1.0f) {
      for (index_t i = 0; i < size; ++i) row[i] *= factor;
    }
    for (index_t h = 0; h < heads; ++h) {
      kernels_.forward.rotate_head(c_.pair_layout, row + h * c_.head_dim + turn.first_channel,
                                   turn.cos, turn.sin, turn.pairs, Rotation::transpose);
    }
    if (sum == row) return;
    for (index_t i = 0; i < size; ++i) sum[i] += row[i];
  }

  /// From the gradients of rotated queries and keys, and of values, to d_hidden of the layer's
  /// input.
  void projection_gradient_tile(index_t l, const LayerActivations<T>& a, Interval rows,
                                float* rounded) const {
    const LayerTransposes<T>& w = trainable_.transposes[static_cast<std::size_t>(l)];
    const LayerPlan& p = plan(l);
    const float scale = query_factor(c_, p);
    for (index_t t = rows.begin; t < rows.end; ++t) {
      float* d_queries = b_.d_queries[0] + t * b_.heads_stride;
      float* d_keys = b_.d_keys[0] + t * b_.key_heads_stride;
      float* d_values = b_.d_values + t * b_.key_heads_stride;
      const float factor =
          p.query_scale.empty() ? scale : scale * p.query_scale[static_cast<std::size_t>(t)];
      for (std::size_t i = 0; i < p.branches.size(); ++i) {
        turn_back(p.branches[i].queries, t, b_.d_queries[i] + t * b_.heads_stride,
                  c_.num_attention_heads, factor, d_queries);
        turn_back(p.branches[i].keys, t, b_.d_keys[i] + t * b_.key_heads_stride,
                  c_.num_key_value_heads, 1.0f, d_keys);
      }
      std::fill(d_queries + c_.query_size(), d_queries + b_.heads_stride, 0.0f);
      std::fill(d_keys + c_.key_value_size(), d_keys + b_.key_heads_stride, 0.0f);
      std::fill(d_values + c_.key_value_size(), d_values + b_.key_heads_stride, 0.0f);
    }
    const index_t count = rows.size(), stride = b_.hidden_stride, at = rows.begin * stride;
    const index_t key_at = rows.begin * b_.key_heads_stride;
    products_.multiply(b_.d_queries[0] + rows.begin * b_.heads_stride, b_.heads_stride, count,
                       w.q_proj, b_.d_normed + at, stride, rounded);
    products_.add_product(b_.d_keys[0] + key_at, b_.key_heads_stride, count, w.k_proj,
                          b_.d_normed + at, b_.d_normed + at, stride, rounded);
    products_.add_product(b_.d_values + key_at, b_.key_heads_stride, count, w.v_proj,
                          b_.d_normed + at, b_.d_normed + at, stride, rounded);
    const float* norm = model_.weights.layers[static_cast<std::size_t>(l)].input_layernorm.data();
    kernels_.forward.rmsnorm(a.projected.hidden + at, stride, count, c_.hidden_size, norm,
                             c_.rms_norm_eps, 1.0f, b_.normed + rows.begin * b_.normed_stride,
                             b_.normed_stride);
    kernels_.rmsnorm_gradient(a.projected.hidden + at, stride, count, c_.hidden_size, norm,
                              c_.rms_norm_eps, b_.d_normed + at, stride, b_.d_middle + at, stride,
                              b_.d_hidden + at, stride, b_.inverse_rms + rows.begin);
  }

  /// Rows of d_hidden, those of a token added up in the batch's order by one worker.
  void embed_gradient() const {
    executor_.run([&](index_t worker, index_t workers) {
      for (index_t t = 0; t < tokens_; ++t) {
        const index_t id = batch_.tokens[static_cast<std::size_t>(t)];
        if (id % workers != worker) continue;
        const float* d = b_.d_hidden + t * b_.hidden_stride;
        float* sum = gradients_.embedding_rows.data() + id * gradients_.row_stride;
        for (index_t i = 0; i < c_.hidden_size; ++i) sum[i] += d[i];
      }
    });
  }

  const TrainableLlama<T>& trainable_;
  const Llama<float>& model_;
  const LlamaConfig& c_;
  std::span<const LayerPlan> plans_;
  const TokenBatch& batch_;
  const TrainingKernels<T>& kernels_;
  const Executor& executor_;
  TokenProducts<T> products_;
  LlamaGradients& gradients_;
  const GradientBuffers<T>& b_;
  index_t tokens_;
  index_t scored_;
  std::vector<Interval> token_runs_, scored_runs_;
  std::vector<AttentionGradientBranch<T>> branches_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
