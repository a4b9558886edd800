// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/oracle/llama_gradient.hpp"

#include "support/arches.hpp"
#include "train/oracle_gradient.hpp"

using namespace ropewalk;

namespace {

/// A gradient is a sum over some hundred tokens of products that have gone through some thirty
/// roundings each, in both directions; with 2^-24 a rounding and the cancellation of sums of random
/// signs, 1e-5 of the norm leaves a factor of about 4 above what is seen.
void check_against_oracle(const Llama<float>& model, const TrainingBatch& batch) {
  check_against_oracle(gradient_of(model, batch), model, batch, 1e-6, 1e-5);
}

}  // namespace

TEST_CASE("train/add_gradients: gradients of every parameter are the double oracle's") {
  const std::vector<std::int32_t> cuts = {0, 1, 30, 97, 160};
  const LlamaConfig config = varied_training_config();
  check_against_oracle(random_llama(config), make_training_batch(config, cuts));
}

TEST_CASE("train/add_gradients: bits do not depend on threads, parts, recomputation, kernels") {
  const Llama<float> model = random_llama(training_config);
  const TrainingBatch batch = make_training_batch(model.config, {0, 50, 51, 130, 258, 300});
  const GradientResult whole = gradient_of(model, batch);
  for (const Execution& e : {Execution{.threads = 2}, Execution{.threads = 3, .recompute = true},
                             Execution{.documents_a_part = 1},
                             Execution{.threads = 2, .recompute = true, .documents_a_part = 2}}) {
    CAPTURE(e.threads);
    CAPTURE(e.documents_a_part);
    check_same_bits(model.config, whole, gradient_of(model, batch, e));
  }
  for_each_arch(
      [&]<class Arch>() { check_same_bits(model.config, whole, gradient_of<Arch>(model, batch)); });
}

TEST_CASE("train/add_gradients: losses are those of the forward pass, bit for bit") {
  const Llama<float> model = random_llama(training_config);
  const TrainingBatch batch = make_training_batch(model.config, {0, 50, 51, 130});
  const GradientResult found = gradient_of(model, batch);
  const FrequencyPlan frequencies = training_frequencies(model.config.head_dim);
  TokenRotations rotations;
  append_tokens(rotations, frequencies, batch.positions);
  const BlockPlan blocks = make_block_plan(Causal{}, 130, batch.cu_seqlens);
  const LayerPlan plan = make_layer_plan(rotations, blocks);
  std::vector<HeadResult> results(130);
  Workspace workspace;
  forward(model, {&plan, 1}, {.tokens = batch.tokens, .targets = batch.targets}, nullptr,
          make_kernel_table<simd::native>(), {}, workspace, results);
  for (std::size_t t = 0; t < results.size(); ++t) {
    if (batch.targets[t] < 0) continue;
    CHECK(results[t].nll == found.results[t].nll);
    CHECK(results[t].argmax == found.results[t].argmax);
  }
}
