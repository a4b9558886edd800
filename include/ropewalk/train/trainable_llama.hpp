// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// TrainableLlama: a model, the transposes that carry gradients back, and gradients themselves.

#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include "ropewalk/core/executor.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/train/training_kernels.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// W^T of the matrices of a layer: dX = dY W is the product with them.
template <class T>
struct LayerTransposes {
  PackedMatrix<T> q_proj, k_proj, v_proj;         // (C, H * D), (C, K * D), (C, K * D)
  PackedMatrix<T> o_proj;                         // (H * D, C)
  PackedMatrix<T> gate_proj, up_proj, down_proj;  // (C, F), (C, F), (F, C)
};

/// A model whose weights change, and what products take of it, stored as T. After each change of
/// weights, refresh() renews what is made of them.
template <class T = float>
struct TrainableLlama {
  Llama<float> model;
  std::vector<LlamaLayer<T>> rounded_layers;  ///< of model; none where T is float
  PackedMatrix<T> rounded_head;               ///< of model.head(); empty where T is float
  std::vector<LayerTransposes<T>> transposes;
  PackedMatrix<T> head_transpose;  ///< (C, V), of model.head()

  /// What products take: where T is float, the weights themselves.
  const LlamaLayer<T>& layer(index_t l) const {
    const auto at = static_cast<std::size_t>(l);
    if constexpr (std::is_same_v<T, float>) {
      return model.weights.layers[at];
    } else {
      return rounded_layers[at];
    }
  }
  const PackedMatrix<T>& head() const {
    if constexpr (std::is_same_v<T, float>) {
      return model.head();
    } else {
      return rounded_head;
    }
  }
  /// Renews transposes, copies and a norm head. \throws Error(numeric) for a zero row under
  /// norm_head
  void refresh(const TrainingKernels<T>& kernels, const Executor& executor);
};

namespace detail {

/// Pointers to the matrices of a layer, or to their transposes, in one order.
template <class Layer>
auto matrices_of(Layer& layer) {
  return std::array{&layer.q_proj,    &layer.k_proj,  &layer.v_proj,   &layer.o_proj,
                    &layer.gate_proj, &layer.up_proj, &layer.down_proj};
}

}  // namespace detail

/// Takes a model over. \throws Error(resource)
template <class T>
TrainableLlama<T> make_trainable(Llama<float> model, const TrainingKernels<T>& kernels,
                                 const Executor& executor = {}) {
  const LlamaConfig& c = model.config;
  TrainableLlama<T> t;
  for (LlamaLayer<float>& layer : model.weights.layers) {
    const auto from = detail::matrices_of(layer);
    const auto transposes = detail::matrices_of(t.transposes.emplace_back());
    for (std::size_t i = 0; i < from.size(); ++i) {
      *transposes[i] = PackedMatrix<T>(from[i]->inputs(), from[i]->outputs());
    }
    if constexpr (!std::is_same_v<T, float>) {
      LlamaLayer<T>& copy = t.rounded_layers.emplace_back();
      copy.input_layernorm = Buffer<float>(c.hidden_size);
      const auto rounded = detail::matrices_of(copy);
      for (std::size_t i = 0; i < from.size(); ++i) {
        *rounded[i] = PackedMatrix<T>(from[i]->outputs(), from[i]->inputs());
      }
    }
  }
  t.head_transpose = PackedMatrix<T>(c.hidden_size, c.vocab_size);
  if constexpr (!std::is_same_v<T, float>) {
    t.rounded_head = PackedMatrix<T>(c.vocab_size, c.hidden_size);
  }
  t.model = std::move(model);
  t.refresh(kernels, executor);
  return t;
}

template <class T>
void TrainableLlama<T>::refresh(const TrainingKernels<T>& kernels, const Executor& executor) {
  if (model.config.norm_head) {
    for (index_t j = 0; j < model.normalized_head.num_panels(); ++j) {
      normalize_rows(model.weights.head(), model.normalized_head, j);
    }
  }
  struct Task {
    void (*write)(const PackedMatrix<float>&, PackedMatrix<T>&, index_t) noexcept;
    const PackedMatrix<float>* from;
    PackedMatrix<T>* to;
    index_t panel;
  };
  std::vector<Task> tasks;
  const auto add = [&](auto write, const PackedMatrix<float>& from, PackedMatrix<T>& to) {
    for (index_t j = 0; j < to.num_panels(); ++j) tasks.push_back({write, &from, &to, j});
  };
  for (std::size_t l = 0; l < transposes.size(); ++l) {
    const LlamaLayer<float>& layer = model.weights.layers[l];
    const auto from = detail::matrices_of(layer);
    const auto to = detail::matrices_of(transposes[l]);
    for (std::size_t i = 0; i < from.size(); ++i) add(kernels.transpose_panel, *from[i], *to[i]);
    if constexpr (!std::is_same_v<T, float>) {
      std::ranges::copy(layer.input_layernorm.span(), rounded_layers[l].input_layernorm.data());
      const auto rounded = detail::matrices_of(rounded_layers[l]);
      for (std::size_t i = 0; i < from.size(); ++i) add(kernels.round_panel, *from[i], *rounded[i]);
    }
  }
  add(kernels.transpose_panel, model.head(), head_transpose);
  if constexpr (!std::is_same_v<T, float>) add(kernels.round_panel, model.head(), rounded_head);
  for_each_dealt(executor, static_cast<index_t>(tasks.size()), [&](index_t i, index_t) {
    const Task& t = tasks[static_cast<std::size_t>(i)];
    t.write(*t.from, *t.to, t.panel);
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
template <class T>
void finish_gradients(const TrainableLlama<T>& trainable, LlamaGradients& gradients,
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
