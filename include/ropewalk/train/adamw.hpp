// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// AdamW over all parameters of a Llama, with gradients clipped by their global norm.

#include <cmath>
#include <string>
#include <vector>

#include "ropewalk/train/trainable_llama.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;   ///< of matrices, embeddings included; never of norms
  double max_grad_norm = 1.0;  ///< gradients are scaled down to this norm; 0 leaves them

  /// \throws Error(usage) naming the field
  void check() const {
    require(beta1 >= 0 && beta1 < 1, "0 <= beta1 < 1");
    require(beta2 >= 0 && beta2 < 1, "0 <= beta2 < 1");
    require(eps > 0, "eps > 0");
    require(weight_decay >= 0, "weight_decay >= 0");
    require(max_grad_norm >= 0, "max_grad_norm >= 0");
  }
};

/// What AdamW remembers: running means of gradients and of their squares, as the weights are
/// stored.
struct AdamWState {
  LlamaWeights<float> first;
  LlamaWeights<float> second;
  std::int64_t steps = 0;
};

inline AdamWState make_adamw_state(const LlamaConfig& config) {
  return {.first = make_llama_weights<float>(config), .second = make_llama_weights<float>(config)};
}

namespace detail {

/// A run of elements of one parameter.
struct ParameterBlock {
  float* weight;
  float* first;
  float* second;
  const float* gradient;
  index_t size;
  bool decays;
};

/// Elements of a block: the unit of work, and of the sum that makes the gradient's norm.
inline constexpr index_t parameter_block = 4096;

inline std::vector<ParameterBlock> parameter_blocks(const LlamaConfig& config,
                                                    LlamaWeights<float>& weights, AdamWState& state,
                                                    LlamaWeights<float>& gradients) {
  struct Part {
    std::span<float> elements;
    bool is_matrix;
  };
  const auto parts_of = [&](LlamaWeights<float>& of) {
    std::vector<Part> parts;
    for_each_parameter(config, of, [&](const std::string&, auto& parameter) {
      if constexpr (requires { parameter.storage(); }) {
        parts.push_back({parameter.storage(), true});
      } else {
        parts.push_back({parameter.span(), false});
      }
    });
    return parts;
  };
  const std::vector<Part> w = parts_of(weights), m = parts_of(state.first),
                          v = parts_of(state.second), g = parts_of(gradients);
  std::vector<ParameterBlock> blocks;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const auto size = static_cast<index_t>(w[i].elements.size());
    for (index_t at = 0; at < size; at += parameter_block) {
      blocks.push_back({w[i].elements.data() + at, m[i].elements.data() + at,
                        v[i].elements.data() + at, g[i].elements.data() + at,
                        std::min(parameter_block, size - at), w[i].is_matrix});
    }
  }
  return blocks;
}

}  // namespace detail

/// One step with finished gradients (finish_gradients()), and the Euclidean norm that these had
/// before they were clipped. The trainable model is refreshed. Nothing changes when it throws.
/// \throws Error(numeric) when the norm is not finite
template <class T>
double adamw_step(TrainableLlama<T>& trainable, LlamaGradients& gradients, AdamWState& state,
                  const AdamWConfig& config, double learning_rate,
                  const TrainingKernels<T>& kernels, const Executor& executor) {
  const std::vector<detail::ParameterBlock> blocks = detail::parameter_blocks(
      trainable.model.config, trainable.model.weights, state, gradients.weights);
  const auto count = static_cast<index_t>(blocks.size());
  std::vector<float> squares(blocks.size());
  for_each_in_runs(executor, count, [&](index_t i, index_t) {
    const auto at = static_cast<std::size_t>(i);
    squares[at] = kernels.sum_of_squares(blocks[at].gradient, blocks[at].size);
  });
  double sum = 0;
  for (const float s : squares) sum += static_cast<double>(s);
  const double norm = std::sqrt(sum);
  if (!std::isfinite(norm)) {
    fail({.kind = ErrorClass::numeric,
          .field = "gradient norm",
          .found = std::to_string(norm),
          .expected = "a finite number: the loss diverges, try a lower learning rate"});
  }
  const auto t = static_cast<double>(++state.steps);
  const double bias1 = 1 - elementary::exp(t * elementary::log(config.beta1));
  const double bias2 = 1 - elementary::exp(t * elementary::log(config.beta2));
  const bool clips = config.max_grad_norm > 0 && norm > config.max_grad_norm;
  AdamWStep step{.gradient_scale = clips ? static_cast<float>(config.max_grad_norm / norm) : 1.0f,
                 .beta1 = static_cast<float>(config.beta1),
                 .beta2 = static_cast<float>(config.beta2),
                 .rest1 = static_cast<float>(1 - config.beta1),
                 .rest2 = static_cast<float>(1 - config.beta2),
                 .eps = static_cast<float>(config.eps),
                 .step_size = static_cast<float>(learning_rate / bias1),
                 .inverse_root_bias2 = static_cast<float>(1 / std::sqrt(bias2)),
                 .keep = 1};
  const auto keep = static_cast<float>(1 - learning_rate * config.weight_decay);
  for_each_in_runs(executor, count, [&](index_t i, index_t) {
    const detail::ParameterBlock& b = blocks[static_cast<std::size_t>(i)];
    AdamWStep own = step;
    if (b.decays) own.keep = keep;
    kernels.adamw_update(b.weight, b.first, b.second, b.gradient, b.size, own);
  });
  trainable.refresh(kernels, executor);
  return norm;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
