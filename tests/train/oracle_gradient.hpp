// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Comparison of a gradient by the kernels with one by the oracle.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ropewalk/oracle/llama_gradient.hpp"

#include "train/training_problem.hpp"

namespace ropewalk {

/// f(name, found, right) for each parameter's gradient.
template <class F>
void for_each_gradient(const LlamaWeights<float>& g, const oracle::DoubleWeights& right, F&& f) {
  f("embed_tokens", oracle::to_matrix(g.embed_tokens), right.embed_tokens);
  f("norm", oracle::to_vector(g.norm), right.norm);
  if (!g.lm_head.empty()) f("lm_head", oracle::to_matrix(g.lm_head), right.lm_head);
  for (std::size_t l = 0; l < g.layers.size(); ++l) {
    const std::string in = " of layer " + std::to_string(l);
    const LlamaLayer<float>& a = g.layers[l];
    const oracle::DoubleLayer& b = right.layers[l];
    f("input_layernorm" + in, oracle::to_vector(a.input_layernorm), b.input_layernorm);
    f("q_proj" + in, oracle::to_matrix(a.q_proj), b.q_proj);
    f("k_proj" + in, oracle::to_matrix(a.k_proj), b.k_proj);
    f("v_proj" + in, oracle::to_matrix(a.v_proj), b.v_proj);
    f("o_proj" + in, oracle::to_matrix(a.o_proj), b.o_proj);
    f("post_attention_layernorm" + in, oracle::to_vector(a.post_attention_layernorm),
      b.post_attention_layernorm);
    f("gate_proj" + in, oracle::to_matrix(a.gate_proj), b.gate_proj);
    f("up_proj" + in, oracle::to_matrix(a.up_proj), b.up_proj);
    f("down_proj" + in, oracle::to_matrix(a.down_proj), b.down_proj);
  }
}

/// The loss weights of a batch times the scale that gradient_of() takes.
inline std::vector<double> scaled_weights(const TrainingBatch& batch) {
  std::vector<double> out;
  for (const float w : batch.loss_weights) out.push_back(0.5 * static_cast<double>(w));
  return out;
}

inline double loss_of(const GradientResult& found, const TrainingBatch& batch) {
  const std::vector<double> weights = scaled_weights(batch);
  double loss = 0;
  for (std::size_t t = 0; t < weights.size(); ++t) {
    if (batch.targets[t] >= 0) loss += weights[t] * found.results[t].nll;
  }
  return loss;
}

/// The loss is within loss_bound of the oracle's, relative, and |found - right| / |right| of each
/// parameter's gradient is below the bound.
inline void check_against_oracle(const GradientResult& found, const Llama<float>& model,
                                 const TrainingBatch& batch, double loss_bound, double bound) {
  const FrequencyPlan frequencies = training_frequencies(model.config.head_dim);
  const FrequencyPlan* plan = &frequencies;
  const std::vector<double> weights = scaled_weights(batch);
  const auto right = oracle::loss_gradient(
      model.config, oracle::make_double_weights(model.config, model.weights), {&plan, 1},
      {.tokens = batch.tokens,
       .targets = batch.targets,
       .loss_weights = weights,
       .positions = batch.positions},
      CausalDocuments{batch.cu_seqlens});
  CHECK(std::fabs(loss_of(found, batch) - right.loss) < loss_bound * right.loss);
  for_each_gradient(found.gradients.weights, right.gradient,
                    [bound](const std::string& name, const auto& a, const auto& b) {
                      INFO(name);
                      CHECK((a - b).norm() < bound * b.norm());
                    });
}

/// Configurations that gradients are checked for, one a run of the test.
inline LlamaConfig varied_training_config() {
  LlamaConfig config = training_config;
  SUBCASE("untied") {}
  SUBCASE("tied") { config.tie_word_embeddings = true; }
  SUBCASE("norm head") { config.norm_head = true; }
  SUBCASE("tied norm head") { config.norm_head = config.tie_word_embeddings = true; }
  SUBCASE("interleaved pairs, one head of keys") {
    config.pair_layout = PairLayout::interleaved;
    config.num_key_value_heads = 1;
  }
  SUBCASE("an odd vocabulary of more than two chunks") { config.vocab_size = 2 * head_chunk + 83; }
  SUBCASE("full vectors and panels") {
    config.hidden_size = 64;
    config.intermediate_size = 192;
    config.head_dim = 32;
  }
  return config;
}

/// The largest |found - right| / |right| of a parameter.
inline double largest_difference(const GradientResult& found, const oracle::DoubleWeights& right) {
  double largest = 0;
  for_each_gradient(found.gradients.weights, right,
                    [&](const std::string&, const auto& a, const auto& b) {
                      largest = std::max(largest, (a - b).norm() / b.norm());
                    });
  return largest;
}

}  // namespace ropewalk
