// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/oracle/llama_gradient.hpp"

#include "support/arches.hpp"
#include "train/oracle_gradient.hpp"
#include "train/rounded_oracle.hpp"

using namespace ropewalk;

// The kernels' floats and the oracle's doubles are apart by some 1e-7 of their size, so that one
// number in 2^-8 / 1e-7, some ten thousand, is rounded to another neighbour: by 2^-8 of itself,
// which would be seen. These problems have so few numbers that it does not happen. What is left is
// float arithmetic, whose error is several times 2^-24. A rounding left out changes the operand by
// 2^-9 or so of its norm, and gradients likewise.
TEST_CASE("train/add_gradients: bf16 operands are rounded where the oracle rounds them") {
  LlamaConfig config{.hidden_size = 20,
                     .intermediate_size = 28,
                     .num_hidden_layers = 2,
                     .num_attention_heads = 2,
                     .num_key_value_heads = 1,
                     .head_dim = 6,
                     .vocab_size = 23,
                     .max_position_embeddings = 64};
  SUBCASE("untied") {}
  SUBCASE("tied") { config.tie_word_embeddings = true; }
  SUBCASE("norm head") { config.norm_head = true; }
  const Llama<float> model = random_llama(config);
  const TrainingBatch batch = make_training_batch(config, {0, 1, 6, 11});
  const FrequencyPlan frequencies = training_frequencies(config.head_dim);
  const std::vector<double> weights = scaled_weights(batch);
  const auto gradient_without = [&](Rounded place) {
    return RoundedOracle(model, frequencies, batch, weights, place).gradient();
  };
  const auto right = gradient_without(Rounded::nothing);
  std::vector<GradientResult> all;
  all.push_back(gradient_of<simd::native, bf16>(model, batch));
  with_fastest_arch<SumsOfTiles>(
      [&]<class Arch>() { all.push_back(gradient_of<Arch, bf16>(model, batch)); });
  for (const GradientResult& found : all) {
    CHECK(std::fabs(loss_of(found, batch) - right.loss) < 1e-6 * right.loss);
    CHECK(largest_difference(found, right.gradient) < 1e-6);
  }
  for (int place = 0; place < static_cast<int>(Rounded::nothing); ++place) {
    CAPTURE(place);
    const auto other = gradient_without(static_cast<Rounded>(place));
    for (const GradientResult& found : all) {
      CHECK(largest_difference(found, other.gradient) > 5e-4);
    }
  }
}

// A rounding changes a number by at most 2^-8 of it, in the root mean square by 0.0017 over all
// mantissas. On the way to a gradient are, in each of two layers, seven matrices, four inputs of
// theirs and seven gradients, and four more in the head: 40 independent errors, together
// 0.0017 sqrt(40) = 0.011 of the norm. 0.04 leaves what norms, softmax and cancellation make of
// them. Losses see half of the roundings, and those of many tokens are averaged.
TEST_CASE("train/add_gradients: bf16 operands change gradients by their roundings") {
  const LlamaConfig config = varied_training_config();
  const Llama<float> model = random_llama(config);
  const TrainingBatch batch = make_training_batch(config, {0, 1, 30, 97, 160});
  check_against_oracle(gradient_of<simd::native, bf16>(model, batch), model, batch, 0.002, 0.04);
  with_fastest_arch<SumsOfTiles>([&]<class Arch>() {
    check_against_oracle(gradient_of<Arch, bf16>(model, batch), model, batch, 0.002, 0.04);
  });
}
