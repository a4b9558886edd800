// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// TrainableLlama: a model, the transposes that carry gradients back, and gradients themselves.

#include <vector>

#include "ropewalk/core/executor.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/train/training_kernels.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// W^T of the matrices of a layer: dX = dY W is the product with them.
struct LayerTransposes {
  PackedMatrix<float> q_proj, k_proj, v_proj;         // (C, H * D), (C, K * D), (C, K * D)
  PackedMatrix<float> o_proj;                         // (H * D, C)
  PackedMatrix<float> gate_proj, up_proj, down_proj;  // (C, F), (C, F), (F, C)
};

/// A model whose weights change. After each change of weights, refresh() renews what is made of
/// them.
struct TrainableLlama {
  Llama<float> model;
  std::vector<LayerTransposes> transposes;
  PackedMatrix<float> head_transpose;  // (C, V), of model.head()

  /// Renews transposes and a norm head. \throws Error(numeric) for a zero row under norm_head
  void refresh(const TrainingKernels& kernels, const Executor& executor);
};

/// Takes a model over. \throws Error(resource)
inline TrainableLlama make_trainable(Llama<float> model, const TrainingKernels& kernels,
                                     const Executor& executor = {}) {
  const LlamaConfig& c = model.config;
  TrainableLlama t;
  for (index_t l = 0; l < c.num_hidden_layers; ++l) {
    t.transposes.push_back({.q_proj = {c.hidden_size, c.query_size()},
                            .k_proj = {c.hidden_size, c.key_value_size()},
                            .v_proj = {c.hidden_size, c.key_value_size()},
                            .o_proj = {c.query_size(), c.hidden_size},
                            .gate_proj = {c.hidden_size, c.intermediate_size},
                            .up_proj = {c.hidden_size, c.intermediate_size},
                            .down_proj = {c.intermediate_size, c.hidden_size}});
  }
  t.head_transpose = PackedMatrix<float>(c.hidden_size, c.vocab_size);
  t.model = std::move(model);
  t.refresh(kernels, executor);
  return t;
}

inline void TrainableLlama::refresh(const TrainingKernels& kernels, const Executor& executor) {
  if (model.config.norm_head) {
    for (index_t j = 0; j < model.normalized_head.num_panels(); ++j) {
      normalize_rows(model.weights.head(), model.normalized_head, j);
    }
  }
  struct Task {
    const PackedMatrix<float>* from;
    PackedMatrix<float>* to;
    index_t panel;
  };
  std::vector<Task> tasks;
  const auto add = [&](const PackedMatrix<float>& from, PackedMatrix<float>& to) {
    for (index_t j = 0; j < to.num_panels(); ++j) tasks.push_back({&from, &to, j});
  };
  for (std::size_t l = 0; l < transposes.size(); ++l) {
    const LlamaLayer<float>& layer = model.weights.layers[l];
    LayerTransposes& to = transposes[l];
    add(layer.q_proj, to.q_proj);
    add(layer.k_proj, to.k_proj);
    add(layer.v_proj, to.v_proj);
    add(layer.o_proj, to.o_proj);
    add(layer.gate_proj, to.gate_proj);
    add(layer.up_proj, to.up_proj);
    add(layer.down_proj, to.down_proj);
  }
  add(model.head(), head_transpose);
  for_each_dealt(executor, static_cast<index_t>(tasks.size()), [&](index_t i, index_t) {
    const Task& t = tasks[static_cast<std::size_t>(i)];
    kernels.transpose_panel(*t.from, *t.to, t.panel);
  });
}

/// Gradients of a model's parameters, in the order in which these are stored. Embeddings that are
/// read by token collect theirs in rows of their own until fold_embeddings(), so that sums do not
/// depend on how a batch was cut.
struct LlamaGradients {
  LlamaWeights<float> weights;
  index_t row_stride = 0;        // of embedding_rows
  Buffer<float> embedding_rows;  // (V, C padded to 16)

  void clear(const LlamaConfig& config) {
    for_each_parameter(config, weights, [](const std::string&, auto& gradient) {
      if constexpr (requires { gradient.storage(); }) {
        std::ranges::fill(gradient.storage(), 0.0f);
      } else {
        std::ranges::fill(gradient.span(), 0.0f);
      }
    });
    std::ranges::fill(embedding_rows.span(), 0.0f);
  }
};

/// Zero gradients of a checked config.
inline LlamaGradients make_llama_gradients(const LlamaConfig& c) {
  const index_t stride = round_up(c.hidden_size, lane_count);
  return {.weights = make_llama_weights<float>(c),
          .row_stride = stride,
          .embedding_rows = Buffer<float>(checked_mul(c.vocab_size, stride, "gradients"))};
}

/// Ends a batch: adds the rows of the embeddings to embed_tokens and, under norm_head, carries the
/// gradient of the normalized rows w / |w| back to the rows w themselves:
/// dw = (dn - n <n, dn>) / |w|.
inline void finish_gradients(const TrainableLlama& trainable, LlamaGradients& gradients,
                             const Executor& executor) {
  const LlamaConfig& c = trainable.model.config;
  if (c.norm_head) {
    PackedMatrix<float>& head =
        c.tie_word_embeddings ? gradients.weights.embed_tokens : gradients.weights.lm_head;
    for_each_in_runs(executor, head.num_panels(), [&](index_t panel, index_t) {
      normalize_rows_gradient(trainable.model.weights.head(), trainable.model.normalized_head, head,
                              panel);
    });
  }
  PackedMatrix<float>& embeddings = gradients.weights.embed_tokens;
  for_each_in_runs(executor, embeddings.num_panels(), [&](index_t panel, index_t) {
    const index_t width = embeddings.width_of_panel(panel), first = panel * panel_width;
    const index_t tokens = std::min(width, c.vocab_size - first);
    float* to = embeddings.panel(panel);
    for (index_t i = 0; i < c.hidden_size; ++i) {
      for (index_t v = 0; v < tokens; ++v) {
        to[i * width + v] += gradients.embedding_rows[(first + v) * gradients.row_stride + i];
      }
    }
  });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
