// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/layer_plan.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/train/adamw.hpp"
#include "ropewalk/train/add_gradients.hpp"

#include "golden/torch_training.hpp"
#include "golden/torch_training_problem.hpp"
#include "support/arches.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace ropewalk;

TEST_CASE("train/adamw: ten steps give torch's losses, norms and weights") {
  const TrainingKernels kernels = make_training_kernels<simd::native>();
  ThreadPool pool(2);
  const Executor executor = pool.executor();
  for (const golden::TorchTraining& right : golden::torch_trainings) {
    INFO(right.name);
    const LlamaConfig config = golden::torch_training_config(right.name);
    TrainableLlama trainable = make_trainable(
        make_llama(config, golden::torch_training_weights(config)), kernels, executor);
    AdamWState state = make_adamw_state(config);
    LlamaGradients gradients = make_llama_gradients(config);
    const FrequencyPlan frequencies = make_frequency_plan(
        AdjustedBase{.rope_theta = golden::torch_training_theta}, {.rotary_dim = config.head_dim});
    Workspace workspace;
    for (std::uint32_t step = 0; step < 10; ++step) {
      const golden::TorchTrainingBatch batch = golden::torch_training_batch(right.name, step);
      TokenRotations rotations;
      append_tokens(rotations, frequencies, batch.positions);
      const BlockPlan blocks =
          make_block_plan(Causal{}, golden::torch_training_tokens, batch.cu_seqlens);
      const LayerPlan plan = make_layer_plan(rotations, blocks);
      std::vector<HeadResult> results(batch.tokens.size());
      gradients.clear(config);
      add_gradients(
          trainable, {&plan, 1},
          {.tokens = batch.tokens, .targets = batch.targets, .loss_weights = batch.loss_weights},
          kernels, executor, workspace, gradients, results);
      double loss = 0;
      for (std::size_t t = 0; t < results.size(); ++t) {
        if (batch.targets[t] < 0) continue;
        loss = std::fma(static_cast<double>(batch.loss_weights[t]), results[t].nll, loss);
      }
      finish_gradients(trainable, gradients, executor);
      const double norm = adamw_step(trainable, gradients, state,
                                     {.beta1 = golden::torch_beta1,
                                      .beta2 = golden::torch_beta2,
                                      .eps = golden::torch_eps,
                                      .weight_decay = golden::torch_weight_decay,
                                      .max_grad_norm = golden::torch_max_grad_norm},
                                     golden::torch_learning_rate[step], kernels, executor);
      CAPTURE(step);
      // torch ran in double. Float gradients are right to about 1e-6; where an element's gradient
      // is near zero AdamW's first steps keep only its sign, so that weights come apart by some
      // 1e-5 of what a step changes, and losses with them.
      CHECK(std::fabs(loss - right.loss[step]) < 1e-5 * right.loss[step]);
      CHECK(std::fabs(norm - right.grad_norm[step]) < 1e-4 * right.grad_norm[step]);
    }
    std::size_t i = 0;
    for_each_parameter(config, trainable.model.weights, [&](const std::string& name, auto& w) {
      const golden::TorchTensor& tensor = right.tensors[i++];
      REQUIRE(name == tensor.name);
      index_t columns = 1, size = 0;
      if constexpr (requires { w.outputs(); }) {
        columns = w.inputs(), size = w.outputs() * columns;
      } else {
        size = w.size();
      }
      for (index_t s = 0; s < 4; ++s) {
        const index_t at = (601 * s + 7) % size;
        float value = 0;
        if constexpr (requires { w.outputs(); }) {
          value = w(at / columns, at % columns);
        } else {
          value = w[at];
        }
        INFO(name);
        CHECK(std::fabs(static_cast<double>(value) - tensor.value[static_cast<std::size_t>(s)]) <
              1e-4);
      }
    });
  }
}

TEST_CASE("train/adamw: one update is the formula, on every instruction set the same bits") {
  const index_t count = 77;
  const auto w = normal_floats(count, 1), m = normal_floats(count, 2, 0.1),
             g = normal_floats(count, 4);
  auto v = normal_floats(count, 3, 0.1);
  for (float& x : v) x *= x;
  const AdamWStep step{.gradient_scale = 0.5f,
                       .beta1 = 0.9f,
                       .beta2 = 0.95f,
                       .rest1 = 0.1f,
                       .rest2 = 0.05f,
                       .eps = 1e-8f,
                       .step_size = 0.02f,
                       .inverse_root_bias2 = 1.5f,
                       .keep = 0.999f};
  std::vector<float> first;
  for_each_arch([&]<class Arch>() {
    auto new_w = w, new_m = m, new_v = v;
    adamw_update<Arch>(new_w.data(), new_m.data(), new_v.data(), g.data(), count, step);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double gradient = 0.5 * static_cast<double>(g[i]);
      const double mean = 0.9 * static_cast<double>(m[i]) + 0.1 * gradient;
      const double square = 0.95 * static_cast<double>(v[i]) + 0.05 * gradient * gradient;
      const double right =
          0.999 * static_cast<double>(w[i]) - 0.02 * mean / (1.5 * std::sqrt(square) + 1e-8);
      // Some ten roundings of 2^-24 relative, of terms below 1 or so.
      CHECK(std::fabs(static_cast<double>(new_m[i]) - mean) < 3e-7);
      CHECK(std::fabs(static_cast<double>(new_v[i]) - square) < 3e-7);
      CHECK(std::fabs(static_cast<double>(new_w[i]) - right) <
            6e-7 * (1 + std::fabs(static_cast<double>(w[i]))));
    }
    if (first.empty()) first = new_w;
    CHECK(first == new_w);
  });
}

TEST_CASE("train/adamw: a gradient that is not finite changes nothing and is refused") {
  const LlamaConfig config = golden::torch_training_config("plain");
  const TrainingKernels kernels = make_training_kernels<simd::native>();
  TrainableLlama trainable =
      make_trainable(make_llama(config, golden::torch_training_weights(config)), kernels);
  AdamWState state = make_adamw_state(config);
  LlamaGradients gradients = make_llama_gradients(config);
  gradients.weights.norm[3] = std::numeric_limits<float>::infinity();
  const float before = trainable.model.weights.norm[3];
  const ErrorInfo error =
      error_of([&] { adamw_step(trainable, gradients, state, {}, 1e-3, kernels, Executor{}); });
  CHECK(error.kind == ErrorClass::numeric);
  CHECK(error.field == "gradient norm");
  CHECK(state.steps == 0);
  CHECK(trainable.model.weights.norm[3] == before);
}
