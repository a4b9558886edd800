// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/hub/hf_checkpoint.hpp"
#include "ropewalk/hub/save_checkpoint.hpp"
#include "ropewalk/rope/frequency_plan.hpp"

#include "support/error_of.hpp"
#include "support/random.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

constexpr LlamaConfig saved_config{.hidden_size = 24,
                                   .intermediate_size = 20,
                                   .num_hidden_layers = 2,
                                   .num_attention_heads = 2,
                                   .num_key_value_heads = 1,
                                   .head_dim = 12,
                                   .vocab_size = 70,
                                   .max_position_embeddings = 64};

AnyFrequency rope_of(const std::string& spec) {
  return parse_rope(spec, ModelRope{.rope_theta = 1e4, .max_position_embeddings = 64});
}

void check_round_trip(const LlamaConfig& config, const std::string& spec) {
  CAPTURE(spec);
  const TempDir folder;
  const Llama<float> model = random_llama(config);
  const AnyFrequency rope = rope_of(spec);
  save_checkpoint({.config = config, .rope = rope, .weights = model.weights}, folder.path());
  const Checkpoint loaded = load_hf_folder(folder.path());
  CHECK(loaded.config == config);
  CHECK(loaded.notes.empty());
  const RotaryShape shape{.rotary_dim = config.head_dim, .seq_len = 64};
  const FrequencyPlan before = make_frequency_plan(rope, shape);
  const FrequencyPlan after = make_frequency_plan(loaded.rope, shape);
  if (spec.starts_with("ntk")) {  // written as the base that it is, rounded once
    for (std::size_t i = 0; i < before.inv_freq.size(); ++i) {
      CHECK(std::fabs(after.inv_freq[i] - before.inv_freq[i]) <= 1e-15 * before.inv_freq[i]);
    }
  } else {
    CHECK(after.rope_hash == before.rope_hash);
  }
  std::vector<std::vector<float>> saved;
  const auto elements = [](const auto& p) {
    if constexpr (requires { p.storage(); }) {
      return std::vector<float>(p.storage().begin(), p.storage().end());
    } else {
      return std::vector<float>(p.span().begin(), p.span().end());
    }
  };
  for_each_parameter(config, model.weights,
                     [&](const std::string&, const auto& p) { saved.push_back(elements(p)); });
  std::size_t i = 0;
  for_each_parameter(config, loaded.weights, [&](const std::string& name, const auto& p) {
    INFO(name);
    CHECK(saved[i++] == elements(p));
  });
}

}  // namespace

TEST_CASE("hub/save_checkpoint: what is written loads with the same bits and frequencies") {
  for (const char* spec : {"default", "theta=50000", "linear:factor=4", "dynamic:factor=2",
                           "yarn:factor=4", "ntk:factor=4",
                           "llama3:factor=4,low_freq_factor=1,high_freq_factor=4,"
                           "original_max_position_embeddings=32",
                           "longrope:factor=4,short_factor=[1,1,1,1,1,1],long_factor=[1,2,3,4,5,6]",
                           "default:partial_rotary_factor=0.5"}) {
    check_round_trip(saved_config, spec);
  }
  LlamaConfig config = saved_config;
  config.tie_word_embeddings = true;
  check_round_trip(config, "default");
  config.tie_word_embeddings = false;
  config.norm_head = true;
  check_round_trip(config, "default");
}

TEST_CASE("hub/save_checkpoint: what config.json cannot say is refused, and nothing written") {
  const TempDir folder;
  LlamaConfig config = saved_config;
  const Llama<float> model = random_llama(config);
  const auto kind = [&](const std::string& spec) {
    const AnyFrequency rope = rope_of(spec);
    return error_of([&] {
             save_checkpoint({.config = config, .rope = rope, .weights = model.weights},
                             folder.path());
           })
        .kind;
  };
  CHECK(kind("default:logit_scale=1.1") == ErrorClass::unsupported);
  config.pair_layout = PairLayout::interleaved;
  CHECK(kind("default") == ErrorClass::usage);
  CHECK_FALSE(file_exists(folder / "config.json"));
  CHECK_FALSE(file_exists(folder / "model.safetensors"));
}

TEST_CASE("hub/save_checkpoint: a file with too few elements does not appear") {
  const TempDir folder;
  {
    SafetensorsWriter writer(folder / "a.safetensors", {{"x", {2, 3}}}, {});
    const std::vector<float> five(5);
    writer.write(five);
    CHECK(error_of([&] { writer.commit(); }).kind == ErrorClass::usage);
  }
  CHECK_FALSE(file_exists(folder / "a.safetensors"));
}
