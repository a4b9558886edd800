// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/oracle/llama_gradient.hpp"

#include "support/arches.hpp"
#include "train/training_problem.hpp"

using namespace ropewalk;

namespace {

/// |a - b| / |b| of each parameter's gradient, all below the bound.
///
/// A gradient is a sum over some hundred tokens of products that have gone through some thirty
/// roundings each, in both directions; with 2^-24 a rounding and the cancellation of sums of random
/// signs, 1e-5 of the norm leaves a factor of about 4 above what is seen.
void check_against_oracle(const Llama<float>& model, const TrainingBatch& batch) {
  const GradientResult found = gradient_of(model, batch);
  const FrequencyPlan frequencies = training_frequencies(model.config.head_dim);
  const FrequencyPlan* plan = &frequencies;
  std::vector<double> weights;
  for (const float w : batch.loss_weights) weights.push_back(0.5 * static_cast<double>(w));
  const auto right = oracle::loss_gradient(
      model.config, oracle::make_double_weights(model.config, model.weights), {&plan, 1},
      {.tokens = batch.tokens,
       .targets = batch.targets,
       .loss_weights = weights,
       .positions = batch.positions},
      CausalDocuments{batch.cu_seqlens});
  double loss = 0;
  for (std::size_t t = 0; t < weights.size(); ++t) {
    if (batch.targets[t] >= 0) loss += weights[t] * found.results[t].nll;
  }
  CHECK(std::fabs(loss - right.loss) < 1e-6 * right.loss);
  const auto compare = [](const std::string& name, const auto& a, const auto& b) {
    INFO(name);
    CHECK((a - b).norm() < 1e-5 * b.norm());
  };
  const LlamaWeights<float>& g = found.gradients.weights;
  compare("embed_tokens", oracle::to_matrix(g.embed_tokens), right.gradient.embed_tokens);
  compare("norm", oracle::to_vector(g.norm), right.gradient.norm);
  if (!model.config.tie_word_embeddings) {
    compare("lm_head", oracle::to_matrix(g.lm_head), right.gradient.lm_head);
  }
  for (std::size_t l = 0; l < g.layers.size(); ++l) {
    INFO("layer ", l);
    const LlamaLayer<float>& a = g.layers[l];
    const oracle::DoubleLayer& b = right.gradient.layers[l];
    compare("input_layernorm", oracle::to_vector(a.input_layernorm), b.input_layernorm);
    compare("q_proj", oracle::to_matrix(a.q_proj), b.q_proj);
    compare("k_proj", oracle::to_matrix(a.k_proj), b.k_proj);
    compare("v_proj", oracle::to_matrix(a.v_proj), b.v_proj);
    compare("o_proj", oracle::to_matrix(a.o_proj), b.o_proj);
    compare("post_attention_layernorm", oracle::to_vector(a.post_attention_layernorm),
            b.post_attention_layernorm);
    compare("gate_proj", oracle::to_matrix(a.gate_proj), b.gate_proj);
    compare("up_proj", oracle::to_matrix(a.up_proj), b.up_proj);
    compare("down_proj", oracle::to_matrix(a.down_proj), b.down_proj);
  }
}

void check_same_bits(const LlamaConfig& config, const GradientResult& a, const GradientResult& b) {
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

}  // namespace

TEST_CASE("train/add_gradients: gradients of every parameter are the double oracle's") {
  const std::vector<std::int32_t> cuts = {0, 1, 30, 97, 160};
  LlamaConfig config = training_config;
  SUBCASE("untied") {}
  SUBCASE("tied") { config.tie_word_embeddings = true; }
  SUBCASE("norm head") { config.norm_head = true; }
  SUBCASE("tied norm head") { config.norm_head = config.tie_word_embeddings = true; }
  SUBCASE("interleaved pairs, one head of keys") {
    config.pair_layout = PairLayout::interleaved;
    config.num_key_value_heads = 1;
  }
  SUBCASE("a vocabulary of more than two chunks") { config.vocab_size = 2 * head_chunk + 83; }
  SUBCASE("full vectors and panels") {
    config.hidden_size = 64;
    config.intermediate_size = 192;
    config.head_dim = 32;
  }
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
