// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/train/init_weights.hpp"
#include "ropewalk/train/trainer.hpp"

#include "support/arches.hpp"
#include "train/training_problem.hpp"

using namespace ropewalk;

namespace {

TrainingSequence make_sequence(index_t length, std::uint32_t stream,
                               std::vector<std::int32_t> cu_seqlens = {}) {
  const auto ids = random_tokens(length + 1, training_config.vocab_size, stream);
  TrainingSequence s{.tokens = {ids.begin(), ids.end() - 1},
                     .targets = {ids.begin() + 1, ids.end()},
                     .cu_seqlens = std::move(cu_seqlens)};
  s.targets[0] = not_scored;
  return s;
}

/// Odd and even numbers of tokens, and of scored ones.
std::vector<TrainingSequence> make_batch(std::uint32_t stream) {
  return {make_sequence(41, stream), make_sequence(70, stream + 1, {0, 11, 50, 70}),
          make_sequence(3, stream + 2), make_sequence(64, stream + 3),
          make_sequence(7, stream + 4)};
}

Trainer<bf16> make_trainer(const TrainingKernels<bf16>& kernels, Executor executor,
                           TrainerOptions options = {}) {
  return Trainer(make_llama(training_config, init_weights(training_config, 5)),
                 make_adamw_state(training_config), kernels, executor, options);
}

LengthFrequencies frequencies() {
  return {AdjustedBase{.rope_theta = 1e4}, training_config.head_dim};
}

/// Losses and norms of some steps, and a few weights.
template <class Arch = simd::native>
std::vector<double> train(index_t threads, TrainerOptions options) {
  ThreadPool pool(threads);
  Trainer trainer = make_trainer(make_training_kernels<Arch, bf16>(), pool.executor(), options);
  std::vector<double> out;
  for (std::uint32_t step = 0; step < 3; ++step) {
    const StepReport report = trainer.step(make_batch(10 * (step % 2)), frequencies(), 1e-2);
    out.push_back(report.loss);
    out.push_back(report.gradient_norm);
  }
  const LlamaWeights<float>& w = trainer.model().weights;
  for (index_t i = 0; i < 12; ++i) {
    out.push_back(static_cast<double>(w.layers[1].q_proj(i, i)));
    out.push_back(static_cast<double>(w.layers[0].down_proj(i, 2 * i)));
    out.push_back(static_cast<double>(w.lm_head(i, i)));
    out.push_back(static_cast<double>(w.embed_tokens(i, i)));
  }
  return out;
}

template <class Sums, class Fastest>
void check_gradient_bits() {
  const Llama<float> model = random_llama(training_config);
  const TrainingBatch batch = make_training_batch(model.config, {0, 50, 51, 130, 258, 300});
  const GradientResult whole = gradient_of<Fastest, bf16>(model, batch);
  for (const Execution& e : {Execution{.threads = 2}, Execution{.threads = 3, .recompute = true},
                             Execution{.documents_a_part = 1},
                             Execution{.threads = 2, .recompute = true, .documents_a_part = 2}}) {
    CAPTURE(e.threads);
    CAPTURE(e.documents_a_part);
    check_same_bits(model.config, whole, gradient_of<Fastest, bf16>(model, batch, e));
  }
  for_each_arch<Sums>([&]<class Arch>() {
    check_same_bits(model.config, whole, gradient_of<Arch, bf16>(model, batch));
  });
}

template <class Sums, class Fastest>
void check_training_bits() {
  const auto alone = train<Fastest>(1, {});
  CHECK(alone == train<Fastest>(2, {}));
  CHECK(alone == train<Fastest>(3, {.tokens_at_once = 1}));
  CHECK(alone == train<Fastest>(2, {.recompute = true, .tokens_at_once = 112}));
  for_each_arch<Sums>([&]<class Arch>() { CHECK(alone == train<Arch>(1, {})); });
}

template <class Fastest>
void check_packed_documents() {
  const auto step_on = [](const std::vector<TrainingSequence>& batch) {
    Trainer trainer = make_trainer(make_training_kernels<Fastest, bf16>(), {});
    const StepReport r = trainer.step(batch, frequencies(), 1e-2);
    return std::vector<double>{r.loss, r.gradient_norm,
                               static_cast<double>(trainer.model().weights.lm_head(3, 5))};
  };
  const TrainingSequence whole = make_sequence(70, 3, {0, 11, 50, 70});
  std::vector<TrainingSequence> apart;
  for (const auto& [first, end] : {std::pair{0, 11}, {11, 50}, {50, 70}}) {
    apart.push_back({.tokens = {whole.tokens.begin() + first, whole.tokens.begin() + end},
                     .targets = {whole.targets.begin() + first, whole.targets.begin() + end}});
  }
  CHECK(step_on({whole}) == step_on(apart));
}

}  // namespace

TEST_CASE("train/add_gradients: bits of bf16 depend on no threads, parts, recomputation, kernels") {
  check_gradient_bits<SumsOfPairs, simd::native>();
  with_fastest_arch<SumsOfTiles>([]<class Arch>() { check_gradient_bits<SumsOfTiles, Arch>(); });
}
TEST_CASE("train/trainer: bits of bf16 depend on no threads, parts, recomputation, kernels") {
  check_training_bits<SumsOfPairs, simd::native>();
  with_fastest_arch<SumsOfTiles>([]<class Arch>() { check_training_bits<SumsOfTiles, Arch>(); });
}
TEST_CASE("train/trainer: with bf16, packed documents count as much as the documents apart") {
  check_packed_documents<simd::native>();
  with_fastest_arch<SumsOfTiles>([]<class Arch>() { check_packed_documents<Arch>(); });
}

// Neighbours in bf16 of weights near 0.02 are 2^-13 apart; five steps of 1e-6 cross the middle
// between two of them once in twenty times.
TEST_CASE("train/trainer: with bf16, steps too small for bf16 still add up") {
  Trainer trainer = make_trainer(make_training_kernels<simd::native, bf16>(), {});
  const LlamaWeights<float> before = init_weights(training_config, 5);
  for (int step = 0; step < 5; ++step) trainer.step(make_batch(1), frequencies(), 1e-6);
  index_t changed = 0, same_rounded = 0;
  const index_t rows = 40, columns = 40;
  for (index_t i = 0; i < rows; ++i) {
    for (index_t k = 0; k < columns; ++k) {
      const float a = before.layers[0].q_proj(i, k);
      const float b = trainer.model().weights.layers[0].q_proj(i, k);
      changed += a != b;
      same_rounded += rounded_to<bf16>(a) == rounded_to<bf16>(b);
    }
  }
  CHECK(changed > rows * columns * 9 / 10);
  CHECK(same_rounded > rows * columns * 8 / 10);
}

// Thirty steps on one batch. Gradients differ by some 2 %, at random from step to step, and curves
// by less.
TEST_CASE("train/trainer: bf16 learns as floats do") {
  const std::vector<TrainingSequence> batch = make_batch(1);
  const auto losses = [&](const auto& kernels) {
    Trainer trainer(make_llama(training_config, init_weights(training_config, 5)),
                    make_adamw_state(training_config), kernels, {});
    std::vector<double> out;
    for (int step = 0; step < 30; ++step) {
      out.push_back(trainer.step(batch, frequencies(), 3e-3).loss);
    }
    return out;
  };
  const auto floats = losses(make_training_kernels<simd::native>());
  const auto rounded = losses(make_training_kernels<simd::native, bf16>());
  CHECK(rounded[0] != floats[0]);
  double largest = 0;
  for (std::size_t i = 0; i < floats.size(); ++i) {
    largest = std::max(largest, std::fabs(rounded[i] / floats[i] - 1));
  }
  CHECK(rounded.back() < 0.6 * rounded.front());
  CHECK(largest < 0.02);
}
