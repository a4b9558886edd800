// SPDX-License-Identifier: Apache-2.0
/// \file
/// A step of training: gradients of a batch of sequences, clipping and AdamW. Operations as
/// training_flops() counts them.

#include <cmath>

#include "ropewalk/eval/perplexity.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/train/cost.hpp"
#include "ropewalk/train/init_weights.hpp"
#include "ropewalk/train/trainer.hpp"

#include "harness.hpp"

namespace bench {
namespace {

struct Shape {
  const char* name;
  index_t length;
  LlamaConfig config;
};

LlamaConfig config_of(index_t hidden, index_t layers, index_t intermediate, index_t heads,
                      index_t head_dim, index_t vocab, index_t length) {
  return {.hidden_size = hidden,
          .intermediate_size = intermediate,
          .num_hidden_layers = layers,
          .num_attention_heads = heads,
          .num_key_value_heads = heads,
          .head_dim = head_dim,
          .vocab_size = vocab,
          .max_position_embeddings = length};
}

/// Presets of `ropewalk train`, with the vocabularies of benchmarks/peers.
const Shape shapes[] = {{"nano", 256, config_of(128, 4, 344, 4, 32, 256, 256)},
                        {"micro", 512, config_of(256, 6, 688, 4, 64, 4096, 512)}};
constexpr index_t batch_tokens = 8192;

/// Steps of a fresh model on one batch again and again. T: what operands of products are stored as.
template <class T>
struct Step {
  Shape shape;
  Threads threads;
  TrainingKernels<T> kernels =
      with_instructions<T>([]<class Arch>() { return make_training_kernels<Arch, T>(); });
  LengthFrequencies frequencies{AdjustedBase{}, shape.config.head_dim};
  std::vector<TrainingSequence> batch = {};
  Trainer<T> trainer;

  Step(const Shape& s, index_t thread_count)
      : shape(s),
        threads(thread_count),
        trainer(make_llama(s.config, init_weights(s.config, 1)), make_adamw_state(s.config),
                kernels, threads.executor()) {
    const Random random{.seed = 3};
    for (index_t first = 0; first < batch_tokens; first += shape.length) {
      std::vector<TokenId> ids;
      for (index_t t = first; t <= first + shape.length; ++t) {
        ids.push_back(static_cast<TokenId>(random.uniform(static_cast<std::uint64_t>(t)) *
                                           static_cast<double>(shape.config.vocab_size)));
      }
      batch.push_back(next_token_sequence(ids));
    }
  }
  StepReport step() { return trainer.step(batch, frequencies, 1e-3); }
  void run() { step(); }
  /// The loss of the first step beside the scoring pass's, and that a second step has less.
  std::string fault() {
    const KernelTable<float> scoring = make_kernel_table<simd::native>();
    const FrequencyPlan plan = frequencies.plan(shape.length);
    Workspace workspace;
    const Runner<float> runner{.model = &trainer.model(),
                               .kernels = &scoring,
                               .executor = threads.executor(),
                               .workspace = &workspace};
    double loss = 0;
    for (const TrainingSequence& s : batch) {
      std::vector<HeadResult> results(s.tokens.size());
      score_sequence(runner, plan, s.tokens, s.targets, {}, results);
      for (const HeadResult& r : results) loss += r.nll / static_cast<double>(batch_tokens);
    }
    const double first = step().loss, second = step().loss;
    if (!(second < first)) return "wrong result: a step does not lower the loss";
    return fault_of(std::fabs(first - loss), std::is_same_v<T, float> ? 1e-10 : 1e-3);
  }
  Work work() const {
    return {.flops = training_flops(shape.config, shape.length) * static_cast<double>(batch.size()),
            .executor = threads.executor(),
            .bf16s = std::is_same_v<T, bf16>};
  }
};

template <class T>
bool add_all() {
  for (const Shape& s : shapes) {
    for (const index_t t : {1, 2}) {
      add("train/" + std::string(s.name) + "/" + std::to_string(s.length) + "/" +
              std::to_string(batch_tokens) + "/" + dtype_and_threads<T>(t),
          [=] { return Step<T>(s, t); });
    }
  }
  return true;
}

[[maybe_unused]] const bool added = add_all<float>() && add_all<bf16>();

}  // namespace
}  // namespace bench
