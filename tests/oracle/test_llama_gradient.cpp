// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/oracle/llama_gradient.hpp"

#include "golden/torch_training.hpp"
#include "golden/torch_training_problem.hpp"
#include "oracle/plain_frequencies.hpp"

namespace ropewalk {
namespace {

using oracle::DoubleWeights;

/// Any mask, so that the oracle is compiled once.
struct AnyMask {
  std::function<bool(index_t, index_t)> sees;
  bool visible(index_t i, index_t j) const { return sees(i, j); }
};
const AnyMask causal{[](index_t i, index_t j) { return j <= i; }};

constexpr LlamaConfig small{.hidden_size = 16,
                            .intermediate_size = 24,
                            .num_hidden_layers = 2,
                            .num_attention_heads = 4,
                            .num_key_value_heads = 2,
                            .head_dim = 8,
                            .vocab_size = 31,
                            .max_position_embeddings = 64};
constexpr std::size_t num_tokens = 13;

/// The elements of every parameter, in the order of for_each_parameter; const where weights are.
template <class Weights>
auto elements(const LlamaConfig& config, Weights& weights) {
  using Element = std::remove_pointer_t<decltype(weights.norm.data())>;
  std::vector<std::span<Element>> spans;
  for_each_parameter(config, weights, [&](const std::string&, auto& storage) {
    spans.emplace_back(storage.data(), static_cast<std::size_t>(storage.size()));
  });
  return spans;
}

double norm_of(std::span<const double> x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

/// Embeddings of deviation 1, other matrices of 1.5 / sqrt(inputs), norms near 1.
DoubleWeights random_weights(const LlamaConfig& config) {
  config.check();
  DoubleWeights weights = oracle::make_double_weights(config, make_llama_weights<float>(config));
  std::uint32_t stream = 0;
  for_each_parameter(config, weights, [&](const std::string& name, auto& storage) {
    const Random random{.seed = 11, .stream = stream++, .step = 0};
    const double deviation = name == "model.embed_tokens.weight"
                                 ? 1
                                 : 1.5 / std::sqrt(static_cast<double>(storage.cols()));
    for (index_t i = 0; i < storage.size(); ++i) {
      const double x = random.normal(static_cast<std::uint64_t>(i));
      storage.data()[i] = storage.cols() == 1 ? 1 + 0.2 * x : deviation * x;
    }
  });
  return weights;
}

/// What a batch of num_tokens points at. Token t's id is 3 t + t^2 mod V: some ids come twice.
struct Batch {
  std::vector<TokenId> tokens, targets;
  std::vector<double> loss_weights;
  std::vector<std::int64_t> positions;

  explicit Batch(std::size_t count = num_tokens) : loss_weights(count, 1.0 / 16) {
    for (std::size_t t = 0; t < count; ++t) {
      tokens.push_back(static_cast<TokenId>((3 * t + t * t) % 31));
      targets.push_back(static_cast<TokenId>((7 * t + 5) % 31));
      positions.push_back(static_cast<std::int64_t>(t));
    }
  }
  oracle::WeightedTokens view() const { return {tokens, targets, loss_weights, positions}; }
};

/// Central differences of fourth order along random directions of norm 1, and of single elements:
/// that of the largest gradient and some other. Steps of 1e-3 beside weights of 0.3 to 1 leave
/// h^4 / 30 of the fifth derivative, below 1e-10 here, and 1e-15 / h = 1e-12 of rounding; a
/// derivative is as large as the gradient's root mean square (times the direction's norm, 1) or
/// counts as that large.
void check_gradient(const LlamaConfig& config, oracle::Plans plans, const Batch& batch,
                    const AnyMask& mask) {
  DoubleWeights weights = random_weights(config);
  const oracle::LossGradient found =
      oracle::loss_gradient(config, weights, plans, batch.view(), mask);
  const auto loss = [&] {
    return oracle::weighted_loss(oracle::make_llama(config, weights), plans, batch.view(), mask);
  };
  CHECK(found.loss == loss());

  const auto gradients = elements(config, found.gradient);
  double worst = 0;
  std::uint32_t tensor = 0;
  for_each_parameter(config, weights, [&](const std::string& name, auto& storage) {
    const std::span<const double> gradient = gradients[tensor];
    const auto size = static_cast<std::size_t>(storage.size());
    REQUIRE(gradient.size() == size);
    const Random random{.seed = 12, .stream = tensor++, .step = 0};
    const double typical = norm_of(gradient) / std::sqrt(static_cast<double>(size));
    CHECK(typical > 1e-5);  // the case reaches this parameter

    const auto check_along = [&](const std::vector<double>& direction) {
      const double exact =
          std::inner_product(gradient.begin(), gradient.end(), direction.begin(), 0.0);
      const auto at = [&](double step) {
        const auto kept = storage;
        for (std::size_t i = 0; i < size; ++i) storage.data()[i] += step * direction[i];
        const double value = loss();
        storage = kept;
        return value;
      };
      constexpr double h = 1e-3;
      const double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      const double error = std::abs(numeric - exact) / std::max(std::abs(exact), typical);
      CHECK_MESSAGE(error < 1e-6, name, ": ", exact, " by the oracle, ", numeric,
                    " by differences");
      worst = std::max(worst, error);
    };
    std::vector<double> direction(size);
    for (std::uint64_t i = 0; i < size; ++i) direction[i] = random.normal(i);
    const double norm = norm_of(direction);
    for (double& d : direction) d /= norm;
    check_along(direction);
    const auto largest = std::max_element(gradient.begin(), gradient.end(), [](double a, double b) {
      return std::abs(a) < std::abs(b);
    });
    for (const auto i : {static_cast<std::size_t>(largest - gradient.begin()),
                         static_cast<std::size_t>(random.bits(size) % size)}) {
      std::fill(direction.begin(), direction.end(), 0.0);
      direction[i] = 1;
      check_along(direction);
    }
  });
  MESSAGE("largest relative difference: " << worst);
}

TEST_CASE("oracle/llama_gradient: finite differences") {
  const FrequencyPlan plain = oracle_test::plain(8, 100);
  const FrequencyPlan* const plans[] = {&plain};
  LlamaConfig config = small;
  SUBCASE("separate head") {}
  SUBCASE("tied head") { config.tie_word_embeddings = true; }
  SUBCASE("normalised head") { config.norm_head = true; }
  SUBCASE("normalised, tied head") { config.norm_head = config.tie_word_embeddings = true; }
  SUBCASE("interleaved pairs") { config.pair_layout = PairLayout::interleaved; }
  check_gradient(config, plans, Batch(), causal);
}

TEST_CASE("oracle/llama_gradient: finite differences of what plans do") {
  const FrequencyPlan yarn = oracle_test::yarn(8, 100, 4, 8);
  REQUIRE(yarn.attention_factor > 1.1);
  FrequencyPlan scaled = oracle_test::plain(4, 100);  // channels [2, 6) of a head
  scaled.first_channel = 2;
  scaled.logit_scale = 1.3;
  scaled.logn = {.length = 4, .clip = false};
  SUBCASE("attention factor, and a layer without rotation") {
    const FrequencyPlan* const plans[] = {&yarn, nullptr};
    check_gradient(small, plans, Batch(), causal);
  }
  SUBCASE("partial rotation, logit scale and log-n scale") {
    const FrequencyPlan* const plans[] = {&scaled, &yarn};
    Batch batch;
    for (std::int64_t& p : batch.positions) p += 2;  // log-n is 0 at position 0
    check_gradient(small, plans, batch, causal);
  }
}

TEST_CASE("oracle/llama_gradient: finite differences of weighted losses and documents") {
  const FrequencyPlan plain = oracle_test::plain(8, 100);
  const FrequencyPlan* const plans[] = {&plain};
  Batch batch;
  for (std::size_t t = 0; t < num_tokens; ++t) {
    batch.loss_weights[t] = static_cast<double>(t % 4) / 16;
  }
  batch.targets[2] = batch.targets[5] = -1;
  batch.loss_weights[5] = 1e3;  // of no meaning where nothing is scored
  const std::vector<std::int32_t> offsets{0, 1, 6, 6, num_tokens};
  batch.positions = oracle::restarting_positions(offsets);
  const CausalDocuments documents(offsets);
  SUBCASE("documents") {
    const AnyMask mask{[&](index_t i, index_t j) { return documents.visible(i, j); }};
    check_gradient(small, plans, batch, mask);
  }
  SUBCASE("a mask of which some tokens see nothing") {
    const AnyMask mask{[](index_t i, index_t j) { return i % 5 != 3 && (i + j) % 3 != 1; }};
    check_gradient(small, plans, batch, mask);
  }
}

/// Largest difference of two gradients, as a part of the largest element of its tensor.
double largest_difference(const LlamaConfig& config, const DoubleWeights& a,
                          const DoubleWeights& b) {
  const auto of_a = elements(config, a), of_b = elements(config, b);
  double worst = 0;
  for (std::size_t tensor = 0; tensor < of_a.size(); ++tensor) {
    double largest = 0, difference = 0;
    for (std::size_t i = 0; i < of_a[tensor].size(); ++i) {
      largest = std::max(largest, std::abs(of_a[tensor][i]));
      difference = std::max(difference, std::abs(of_a[tensor][i] - of_b[tensor][i]));
    }
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

TEST_CASE("oracle/llama_gradient: that of packed documents is the sum of theirs") {
  const FrequencyPlan plain = oracle_test::plain(8, 100);
  const FrequencyPlan* const plans[] = {&plain};
  const DoubleWeights weights = random_weights(small);
  const std::vector<std::int32_t> offsets{0, 4, 5, num_tokens};
  Batch batch;
  batch.positions = oracle::restarting_positions(offsets);
  const CausalDocuments documents(offsets);
  const AnyMask mask{[&](index_t i, index_t j) { return documents.visible(i, j); }};
  const auto packed = oracle::loss_gradient(small, weights, plans, batch.view(), mask);

  double loss = 0;
  DoubleWeights sum;
  for (std::size_t d = 0; d + 1 < offsets.size(); ++d) {
    const auto first = static_cast<std::size_t>(offsets[d]);
    const auto count = static_cast<std::size_t>(offsets[d + 1]) - first;
    const oracle::WeightedTokens whole = batch.view();
    const auto alone = oracle::loss_gradient(
        small, weights, plans,
        {whole.tokens.subspan(first, count), whole.targets.subspan(first, count),
         whole.loss_weights.subspan(first, count), whole.positions.subspan(first, count)},
        causal);
    loss += alone.loss;
    if (d == 0) {
      sum = alone.gradient;
      continue;
    }
    const auto terms = elements(small, alone.gradient);
    const auto sums = elements(small, sum);
    for (std::size_t tensor = 0; tensor < sums.size(); ++tensor) {
      std::transform(sums[tensor].begin(), sums[tensor].end(), terms[tensor].begin(),
                     sums[tensor].begin(), std::plus<>());
    }
  }
  CHECK(std::abs(packed.loss - loss) < 1e-14);
  CHECK(largest_difference(small, packed.gradient, sum) < 1e-13);  // sums in another order
  const auto mixed = oracle::loss_gradient(small, weights, plans, batch.view(), causal);
  CHECK(largest_difference(small, mixed.gradient, sum) > 0.1);
}

/// The samples of golden::TorchTensor.
double sample(std::span<const double> tensor, std::size_t i) {
  return tensor[(601 * i + 7) % tensor.size()];
}

/// Step t = 1, 2, .. of AdamW with gradients clipped by their norm, to which torch adds 1e-6.
/// Matrices decay. \param first, second  moments, zero before step 1
/// **Source:** arXiv:1711.05101, Algorithm 2.
void adamw(const LlamaConfig& config, DoubleWeights& weights, const DoubleWeights& gradient,
           double norm, int t, double lr, DoubleWeights& first, DoubleWeights& second) {
  const auto w = elements(config, weights), m = elements(config, first),
             v = elements(config, second);
  const auto g = elements(config, gradient);
  const double scale = std::min(1.0, golden::torch_max_grad_norm / (norm + 1e-6));
  const double beta1 = golden::torch_beta1, beta2 = golden::torch_beta2;
  std::size_t tensor = 0;
  for_each_parameter(config, weights, [&](const std::string&, const auto& storage) {
    const double decay = storage.cols() == 1 ? 0 : golden::torch_weight_decay;
    for (std::size_t i = 0; i < w[tensor].size(); ++i) {
      const double d = scale * g[tensor][i];
      double &mean = m[tensor][i], &square = v[tensor][i], &x = w[tensor][i];
      mean = beta1 * mean + (1 - beta1) * d;
      square = beta2 * square + (1 - beta2) * d * d;
      const double mean_hat = mean / (1 - std::pow(beta1, t));
      const double square_hat = square / (1 - std::pow(beta2, t));
      x -= lr * (decay * x + mean_hat / (std::sqrt(square_hat) + golden::torch_eps));
    }
    ++tensor;
  });
}

TEST_CASE("oracle/llama_gradient: ten steps of AdamW by torch") {
  const FrequencyPlan plain = oracle_test::plain(8, golden::torch_training_theta);
  const FrequencyPlan* const plans[] = {&plain};
  for (const golden::TorchTraining& torch : golden::torch_trainings) {
    const LlamaConfig config = golden::torch_training_config(torch.name);
    const DoubleWeights start =
        oracle::make_double_weights(config, golden::torch_training_weights(config));
    DoubleWeights weights = start;
    DoubleWeights first = oracle::make_double_weights(config, make_llama_weights<float>(config));
    DoubleWeights second = first;
    double worst = 0;
    // Both in double: sums in another order, libm of another make. No number is far above 1.
    const auto compare = [&](double a, double b) {
      CHECK(std::abs(a - b) < 1e-12);
      worst = std::max(worst, std::abs(a - b));
    };
    for (std::uint32_t step = 0; step < torch.loss.size(); ++step) {
      const auto batch = golden::torch_training_batch(torch.name, step);
      const CausalDocuments documents(batch.cu_seqlens);
      const AnyMask mask{[&](index_t i, index_t j) { return documents.visible(i, j); }};
      const std::vector<double> loss_weights(batch.loss_weights.begin(), batch.loss_weights.end());
      const oracle::LossGradient found =
          oracle::loss_gradient(config, weights, plans,
                                {batch.tokens, batch.targets, loss_weights, batch.positions}, mask);
      const auto g = elements(config, found.gradient);
      double square = 0;
      for (const auto& tensor : g) square += norm_of(tensor) * norm_of(tensor);
      const double norm = std::sqrt(square);
      compare(found.loss, torch.loss[step]);
      compare(norm, torch.grad_norm[step]);
      if (step == 0) {
        std::size_t tensor = 0;
        for_each_parameter(config, found.gradient, [&](const std::string& name, const auto&) {
          const golden::TorchTensor& expected = torch.tensors[tensor];
          REQUIRE(name == expected.name);
          compare(norm_of(g[tensor]), expected.gradient_norm);
          for (std::size_t i = 0; i < expected.gradient.size(); ++i) {
            compare(sample(g[tensor], i), expected.gradient[i]);
          }
          ++tensor;
        });
        CHECK(tensor == torch.tensors.size());
      }
      adamw(config, weights, found.gradient, norm, static_cast<int>(step) + 1,
            golden::torch_learning_rate[step], first, second);
    }
    const auto before = elements(config, start);
    const auto after = elements(config, weights);
    for (std::size_t tensor = 0; tensor < after.size(); ++tensor) {
      const golden::TorchTensor& expected = torch.tensors[tensor];
      std::vector<double> change(after[tensor].begin(), after[tensor].end());
      for (std::size_t i = 0; i < change.size(); ++i) change[i] -= before[tensor][i];
      compare(norm_of(change), expected.distance);
      for (std::size_t i = 0; i < expected.value.size(); ++i) {
        compare(sample(after[tensor], i), expected.value[i]);
      }
    }
    MESSAGE(std::string(torch.name) << ": largest difference " << worst);
  }
}

TEST_CASE("oracle/llama_gradient: wrong input is refused") {
  const FrequencyPlan plain = oracle_test::plain(8, 100);
  const FrequencyPlan* const plans[] = {&plain};
  DoubleWeights weights = random_weights(small);
  const auto run = [&](const LlamaConfig& config, const Batch& batch) {
    return oracle::loss_gradient(config, weights, plans, batch.view(), causal).loss;
  };
  CHECK(run(small, Batch()) > 0);
  Batch batch;
  batch.loss_weights.pop_back();
  CHECK_THROWS_AS(run(small, batch), Error);
  batch = Batch();
  batch.targets[3] = 31;
  CHECK_THROWS_AS(run(small, batch), Error);
  batch = Batch();
  batch.tokens[3] = -1;
  CHECK_THROWS_AS(run(small, batch), Error);
  LlamaConfig config = small;
  config.norm_head = true;
  weights.lm_head.row(7).setZero();
  CHECK_THROWS_AS(run(config, Batch()), Error);
}

}  // namespace
}  // namespace ropewalk
