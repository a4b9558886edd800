// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/dynamic_ntk.hpp"
#include "ropewalk/train/init_weights.hpp"
#include "ropewalk/train/learning_rate.hpp"
#include "ropewalk/train/trainer.hpp"

#include "support/error_of.hpp"
#include "train/training_problem.hpp"

using namespace ropewalk;

namespace {

TrainingSequence make_sequence(index_t length, std::uint32_t stream,
                               std::vector<std::int32_t> cu_seqlens = {}) {
  const auto ids = random_tokens(length + 1, training_config.vocab_size, stream);
  return {.tokens = {ids.begin(), ids.end() - 1},
          .targets = {ids.begin() + 1, ids.end()},
          .loss_weights = {},
          .cu_seqlens = std::move(cu_seqlens),
          .positions = {}};
}

std::vector<TrainingSequence> make_batch(std::uint32_t stream) {
  return {make_sequence(40, stream), make_sequence(70, stream + 1, {0, 11, 50, 70}),
          make_sequence(3, stream + 2), make_sequence(64, stream + 3)};
}

LengthFrequencies plain_frequencies() {
  return {AdjustedBase{.rope_theta = 1e4}, training_config.head_dim};
}

/// Losses of some steps, then those of the weights they led to.
std::vector<double> train(index_t threads, TrainerOptions options,
                          const LengthFrequencies& frequencies = plain_frequencies()) {
  ThreadPool pool(threads);
  Trainer trainer(make_llama(training_config, init_weights(training_config, 5)),
                  make_adamw_state(training_config), make_training_kernels<simd::native>(),
                  pool.executor(), options);
  std::vector<double> out;
  for (std::uint32_t step = 0; step < 4; ++step) {
    const StepReport report = trainer.step(make_batch(10 * (step % 2)), frequencies, 1e-2);
    out.push_back(report.loss);
    out.push_back(report.gradient_norm);
    CHECK(report.tokens == 177);
  }
  return out;
}

}  // namespace

TEST_CASE("train/trainer: bits do not depend on threads, parts of a batch, recomputation") {
  const auto alone = train(1, {});
  CHECK(alone == train(2, {}));
  CHECK(alone == train(3, {.tokens_at_once = 1}));
  CHECK(alone == train(2, {.tokens_at_once = 100}));
  CHECK(alone == train(2, {.recompute = true, .tokens_at_once = 110}));
  CHECK(alone[4] < alone[0]);  // the same batch two steps later
}

TEST_CASE("train/cost: bytes of a token are those of the tensors of a step") {
  const LlamaConfig c{.hidden_size = 10,
                      .intermediate_size = 7,
                      .num_hidden_layers = 3,
                      .num_attention_heads = 4,
                      .num_key_value_heads = 2,
                      .head_dim = 5,
                      .vocab_size = 9};
  // hidden, middle; queries and attended of 20; keys and values of 10; 4 lse; gate and up of 7
  const index_t kept = 2 * 10 + 2 * 20 + 2 * 10 + 4 + 2 * 7;
  // seven of 10: last, d_last, d_middle, normed, d_normed, gathered and scaled; d_queries and
  // d_attended of 20; d_keys, d_values and both transposed of 10; fed of 7; logits of 9
  const index_t back = 7 * 10 + 2 * 20 + 4 * 10 + 7 + 9;
  CHECK(token_bytes(c) == 4 * (3 * kept + back));
}

TEST_CASE("train/trainer: packed documents count as much as the documents apart") {
  const auto apart = [](bool packed) {
    std::vector<TrainingSequence> batch;
    if (packed) {
      batch.push_back(make_sequence(70, 3, {0, 11, 50, 70}));
    } else {
      const TrainingSequence whole = make_sequence(70, 3);
      for (const auto& [first, end] : {std::pair{0, 11}, {11, 50}, {50, 70}}) {
        batch.push_back({.tokens = {whole.tokens.begin() + first, whole.tokens.begin() + end},
                         .targets = {whole.targets.begin() + first, whole.targets.begin() + end}});
      }
    }
    Trainer trainer(make_llama(training_config, init_weights(training_config, 5)),
                    make_adamw_state(training_config), make_training_kernels<simd::native>(), {});
    const StepReport r = trainer.step(batch, plain_frequencies(), 1e-2);
    return std::vector<double>{r.loss, r.gradient_norm,
                               static_cast<double>(trainer.model().weights.norm[1])};
  };
  CHECK(apart(true) == apart(false));
}

TEST_CASE("train/trainer: masks and positions of documents do what their names say") {
  const auto loss = [](bool mask, bool reset) {
    Trainer trainer(make_llama(training_config, init_weights(training_config, 5)),
                    make_adamw_state(training_config), make_training_kernels<simd::native>(), {},
                    {.mask_documents = mask, .reset_positions = reset});
    const std::vector<TrainingSequence> batch = {make_sequence(70, 3, {0, 11, 50, 70})};
    return trainer.step(batch, plain_frequencies(), 1e-2).loss;
  };
  // Under a mask only differences of positions count, so that a reset changes rounding alone: the
  // angles' float cos and sin differ by 6e-8 each, losses of size 4.5 by less than 1e-5.
  CHECK(std::fabs(loss(true, true) - loss(true, false)) < 1e-5);
  CHECK(loss(true, true) != loss(false, false));
  CHECK(loss(false, true) != loss(false, false));
}

TEST_CASE("train/trainer: methods that depend on the length train with each document's own") {
  const DynamicNtk policy{.rope_theta = 1e4, .factor = 2, .original_max_position_embeddings = 16};
  const LengthFrequencies dynamic(policy, training_config.head_dim);
  const auto first_loss = [](const LengthFrequencies& frequencies,
                             const std::vector<TrainingSequence>& batch) {
    Trainer trainer(make_llama(training_config, init_weights(training_config, 5)),
                    make_adamw_state(training_config), make_training_kernels<simd::native>(), {});
    return trainer.step(batch, frequencies, 1e-2).loss;
  };
  const double together = first_loss(dynamic, {make_sequence(10, 1), make_sequence(40, 2)});
  const LengthFrequencies of_10(dynamic.plan(10)), of_40(dynamic.plan(40));
  const double apart = (10 * first_loss(of_10, {make_sequence(10, 1)}) +
                        40 * first_loss(of_40, {make_sequence(40, 2)})) /
                       50;
  CHECK(std::fabs(together - apart) < 1e-14 * apart);
  CHECK(together != first_loss(of_40, {make_sequence(10, 1), make_sequence(40, 2)}));

  // Positions of its own make a sequence as long as they reach.
  TrainingSequence skips = make_sequence(10, 1);
  for (std::int64_t t = 0; t < 10; ++t) skips.positions.push_back(t < 5 ? t : t + 30);
  CHECK(first_loss(dynamic, {skips}) == first_loss(of_40, {skips}));
  CHECK(first_loss(dynamic, {skips}) != first_loss(of_10, {skips}));
}

TEST_CASE("train/trainer: wrong batches are refused") {
  Trainer trainer(make_llama(training_config, init_weights(training_config, 5)),
                  make_adamw_state(training_config), make_training_kernels<simd::native>(), {});
  const auto kind_of = [&](TrainingSequence s) {
    return error_of([&] { trainer.step(std::vector{std::move(s)}, plain_frequencies(), 1e-2); })
        .kind;
  };
  TrainingSequence s = make_sequence(5, 1);
  s.targets.pop_back();
  CHECK(kind_of(s) == ErrorClass::usage);
  s = make_sequence(5, 1);
  for (TokenId& t : s.targets) t = not_scored;
  CHECK(kind_of(s) == ErrorClass::usage);
  s = make_sequence(5, 1);
  s.tokens[2] = training_config.vocab_size;
  CHECK(kind_of(s) == ErrorClass::usage);
  s = make_sequence(5, 1, {0, 4});
  CHECK(kind_of(s) == ErrorClass::usage);
}

TEST_CASE("train/learning_rate: warm-up, cosine, and a straight decay") {
  const LearningRateSchedule cosine{.peak = 1, .end = 0.1, .warmup = 0.1, .steps = 100};
  CHECK(cosine.at(0) == 0.1);
  CHECK(cosine.at(9) == 1);
  CHECK(cosine.at(10) == 1);
  for (std::int64_t s = 10; s < 100; ++s) {
    const double x = static_cast<double>(s - 10) / 90;
    CHECK(std::fabs(cosine.at(s) - (0.1 + 0.45 * (1 + std::cos(std::acos(-1.0) * x)))) < 1e-12);
  }
  CHECK(cosine.at(100) == 0.1);
  const LearningRateSchedule stable{
      .peak = 1, .end = 0, .warmup = 0, .decay = Decay::stable, .decay_share = 0.5, .steps = 10};
  CHECK(stable.at(0) == 1);
  CHECK(stable.at(5) == 1);
  CHECK(std::fabs(stable.at(7) - 0.6) < 1e-12);
  const LearningRateSchedule constant{
      .peak = 0.5, .end = 0, .warmup = 0.2, .decay = Decay::constant, .steps = 10};
  CHECK(constant.at(0) == 0.25);
  CHECK(constant.at(9) == 0.5);
  CHECK(constant.at(99) == 0.5);
}

TEST_CASE("train/init_weights: of the stated deviation, a function of the seed") {
  LlamaConfig config = training_config;
  config.hidden_size = 128;
  const LlamaWeights<float> a = init_weights(config, 1), b = init_weights(config, 1),
                            c = init_weights(config, 2);
  const auto deviation = [](const PackedMatrix<float>& m) {
    double squares = 0;
    for (const float x : m.storage()) squares += static_cast<double>(x) * static_cast<double>(x);
    return std::sqrt(squares / static_cast<double>(m.outputs() * m.inputs()));
  };
  // Of n normal numbers the deviation is known to 1 / sqrt(2 n), here below 1 %.
  CHECK(std::fabs(deviation(a.embed_tokens) - 0.02) < 0.02 * 0.04);
  CHECK(std::fabs(deviation(a.layers[1].down_proj) - 0.01) < 0.01 * 0.04);
  CHECK(a.embed_tokens(3, 5) == b.embed_tokens(3, 5));
  CHECK(a.embed_tokens(3, 5) != c.embed_tokens(3, 5));
  CHECK(a.layers[0].input_layernorm[7] == 1);
}
