// SPDX-License-Identifier: Apache-2.0
// Training: a small Llama begins to learn a language whose best loss is known. The printed digits
// are the same for any number of threads and on any processor with fused multiply-add.
#include <cstdio>

#include <ropewalk/rope/adjusted_base.hpp>
#include <ropewalk/text/synthetic_floor.hpp>
#include <ropewalk/train/init_weights.hpp>
#include <ropewalk/train/learning_rate.hpp>
#include <ropewalk/train/trainer.hpp>

namespace rw = ropewalk;

int main() {
  // Two words of text, and three keys whose values a document states once and then repeats.
  const rw::SyntheticLanguage language(
      {.text_symbols = 2,
       .records = {
           {.rate = 0.6, .keys = 3, .exponent = 1, .value_length = 1, .value_symbols = 3}}});
  const rw::LlamaConfig config{.hidden_size = 16,
                               .intermediate_size = 32,
                               .num_hidden_layers = 2,
                               .num_attention_heads = 2,
                               .num_key_value_heads = 2,
                               .head_dim = 8,
                               .vocab_size = language.vocab_size(),
                               .max_position_embeddings = 64};
  rw::Trainer trainer(rw::make_llama(config, rw::init_weights(config, /*seed=*/1)),
                      rw::make_adamw_state(config), rw::make_training_kernels<rw::simd::native>(),
                      /*executor=*/{});
  const rw::LengthFrequencies frequencies(rw::AdjustedBase{.rope_theta = 1000}, config.head_dim);
  const rw::LearningRateSchedule schedule{.peak = 1e-2, .end = 1e-3, .steps = 100};

  std::printf("step   loss   floor\n");
  std::uint32_t document = 0;
  double loss = 0, floor = 0;
  for (std::int64_t step = 0; step < schedule.steps; ++step) {
    std::vector<rw::TrainingSequence> batch;
    for (int i = 0; i < 8; ++i) {
      const auto ids = language.tokens(/*seed=*/1, document++, rw::index_t{65});
      batch.push_back({.tokens = {ids.begin(), ids.end() - 1},
                       .targets = {ids.begin() + 1, ids.end()},
                       .loss_weights = {},
                       .cu_seqlens = {},
                       .positions = {}});
      const auto ideal = rw::floor_nll(language, ids);
      for (std::size_t t = 1; t < ids.size(); ++t) floor += ideal[t] / (8 * 64 * 25);
    }
    loss += trainer.step(batch, frequencies, schedule.at(step)).loss / 25;
    if (step % 25 != 24) continue;
    std::printf("%4d  %.4f  %.4f\n", static_cast<int>(step + 1), loss, floor);
    loss = floor = 0;
  }
}
