// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A small batch of packed documents, a model to train on it, and its gradient by the kernels,
/// compared bit by bit.

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/layer_plan.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/yarn.hpp"
#include "ropewalk/train/add_gradients.hpp"

#include "support/random.hpp"

namespace ropewalk {

/// Widths that fill no vector, grouped heads.
constexpr LlamaConfig training_config{.hidden_size = 40,
                                      .intermediate_size = 52,
                                      .num_hidden_layers = 2,
                                      .num_attention_heads = 4,
                                      .num_key_value_heads = 2,
                                      .head_dim = 12,
                                      .vocab_size = 91,
                                      .max_position_embeddings = 64};

inline FrequencyPlan training_frequencies(index_t head_dim) {
  return make_frequency_plan(Yarn{.factor = 4, .original_max_position_embeddings = 64},
                             {.rotary_dim = head_dim});
}

/// Documents side by side, token t predicting the next id; some targets are left out.
struct TrainingBatch {
  std::vector<TokenId> tokens = {}, targets = {};
  std::vector<float> loss_weights = {};
  std::vector<std::int32_t> cu_seqlens = {};
  std::vector<std::int64_t> positions = {};
};

inline TrainingBatch make_training_batch(const LlamaConfig& config,
                                         std::vector<std::int32_t> cu_seqlens,
                                         std::uint32_t stream = 1) {
  TrainingBatch b{.cu_seqlens = std::move(cu_seqlens)};
  const auto n = static_cast<std::size_t>(b.cu_seqlens.back());
  const auto ids = random_tokens(static_cast<index_t>(n) + 1, config.vocab_size, stream);
  b.tokens.assign(ids.begin(), ids.end() - 1);
  b.targets.assign(ids.begin() + 1, ids.end());
  for (std::size_t t = 0; t < n; ++t) {
    if (t % 7 == 3) b.targets[t] = not_scored;
    b.loss_weights.push_back(0.25f + 0.125f * static_cast<float>(t % 5));
  }
  b.positions = batch_positions(DocumentRestart{b.cu_seqlens});
  return b;
}

/// What a gradient may depend on and must not.
struct Execution {
  index_t threads = 1;
  bool recompute = false;
  std::size_t documents_a_part = 0;  ///< 0: all at once
};

struct GradientResult {
  LlamaGradients gradients;
  std::vector<HeadResult> results;
};

/// The gradient of sum_t weight_t nll_t under a causal mask within documents; operands of T.
template <class Arch = simd::native, class T = float>
GradientResult gradient_of(const Llama<float>& model, const TrainingBatch& batch,
                           const Execution& execution = {}) {
  const TrainingKernels<T> kernels = make_training_kernels<Arch, T>();
  ThreadPool pool(execution.threads);
  const Executor executor = pool.executor();
  LlamaWeights<float> copy = make_llama_weights<float>(model.config);
  std::vector<std::span<const float>> from;
  const auto elements = [](auto& p) {
    if constexpr (requires { p.storage(); }) {
      return p.storage();
    } else {
      return p.span();
    }
  };
  for_each_parameter(model.config, model.weights,
                     [&](const std::string&, auto& p) { from.push_back(elements(p)); });
  std::size_t next = 0;
  for_each_parameter(model.config, copy, [&](const std::string&, auto& p) {
    std::ranges::copy(from[next++], elements(p).begin());
  });
  const TrainableLlama<T> trainable =
      make_trainable(make_llama(model.config, std::move(copy)), kernels, executor);
  GradientResult r{make_llama_gradients(model.config),
                   std::vector<HeadResult>(batch.tokens.size())};
  const FrequencyPlan frequencies = training_frequencies(model.config.head_dim);
  Workspace workspace;
  const std::size_t documents = batch.cu_seqlens.size() - 1;
  const std::size_t step = execution.documents_a_part == 0 ? documents : execution.documents_a_part;
  for (std::size_t d = 0; d < documents; d += step) {
    const std::size_t end = std::min(documents, d + step);
    const auto first = static_cast<std::size_t>(batch.cu_seqlens[d]);
    const auto count = static_cast<std::size_t>(batch.cu_seqlens[end]) - first;
    std::vector<std::int32_t> cuts;
    for (std::size_t i = d; i <= end; ++i) {
      cuts.push_back(batch.cu_seqlens[i] - static_cast<std::int32_t>(first));
    }
    TokenRotations rotations;
    append_tokens(rotations, frequencies, std::span(batch.positions).subspan(first, count));
    const BlockPlan blocks = make_block_plan(Causal{}, static_cast<index_t>(count), cuts);
    const LayerPlan plan = make_layer_plan(rotations, blocks);
    add_gradients(trainable, {&plan, 1},
                  {.tokens = std::span(batch.tokens).subspan(first, count),
                   .targets = std::span(batch.targets).subspan(first, count),
                   .loss_weights = std::span(batch.loss_weights).subspan(first, count)},
                  kernels, executor, workspace, r.gradients,
                  std::span(r.results).subspan(first, count),
                  {.scale = 0.5, .recompute = execution.recompute});
  }
  finish_gradients(trainable, r.gradients, executor);
  return r;
}

inline void check_same_bits(const LlamaConfig& config, const GradientResult& a,
                            const GradientResult& b) {
  std::vector<std::vector<float>> first;
  for_each_parameter(config, a.gradients.weights, [&](const std::string&, auto& p) {
    if constexpr (requires { p.storage(); }) {
      first.emplace_back(p.storage().begin(), p.storage().end());
    } else {
      first.emplace_back(p.span().begin(), p.span().end());
    }
  });
  std::size_t i = 0;
  for_each_parameter(config, b.gradients.weights, [&](const std::string& name, auto& p) {
    INFO(name);
    const auto span = [&] {
      if constexpr (requires { p.storage(); }) {
        return p.storage();
      } else {
        return p.span();
      }
    }();
    CHECK(std::ranges::equal(first[i++], span));
  });
  for (std::size_t t = 0; t < a.results.size(); ++t) {
    CHECK(a.results[t].nll == b.results[t].nll);
    CHECK(a.results[t].argmax == b.results[t].argmax);
  }
}

}  // namespace ropewalk
