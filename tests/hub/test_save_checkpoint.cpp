// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/hub/eos_ids.hpp"
#include "ropewalk/hub/hf_checkpoint.hpp"
#include "ropewalk/hub/save_checkpoint.hpp"

#include "support/error_of.hpp"
#include "support/kill_points.hpp"
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

void save(const LlamaConfig& config, const std::string& spec, const LlamaWeights<float>& weights,
          const std::string& folder) {
  const AnyFrequency rope = rope_of(spec);
  save_checkpoint({.config = config, .rope = rope, .weights = weights}, folder);
}

/// Elements of every parameter, padding included.
std::vector<std::vector<float>> elements_of(const LlamaConfig& config,
                                            const LlamaWeights<float>& weights) {
  std::vector<std::vector<float>> out;
  for_each_parameter(config, weights, [&](const std::string&, const auto& p) {
    if constexpr (requires { p.storage(); }) {
      out.emplace_back(p.storage().begin(), p.storage().end());
    } else {
      out.emplace_back(p.span().begin(), p.span().end());
    }
  });
  return out;
}

/// What is written loads without a remark as the same weights and the rope `read_as`.
void check_round_trip(const LlamaConfig& config, const std::string& spec,
                      const std::string& read_as) {
  CAPTURE(spec);
  const TempDir folder;
  const Llama<float> model = random_llama(config);
  save(config, spec, model.weights, folder.path());
  const Checkpoint loaded = load_hf_folder(folder.path());
  CHECK(loaded.config == config);
  CHECK(loaded.notes == std::vector<std::string>{});
  CHECK(to_text(loaded.rope) == to_text(rope_of(read_as)));
  CHECK(elements_of(config, loaded.weights) == elements_of(config, model.weights));
  CHECK(loaded.tokenizer_path.empty());
  CHECK(read_eos_ids(folder.path(), config.vocab_size).empty());
}

void check_round_trip(const LlamaConfig& config, const std::string& spec) {
  check_round_trip(config, spec, spec);
}

std::string config_text(const TempDir& folder) {
  return read_text(FileSource(folder / "config.json"), 1 << 20);
}

bool says_llama(const LlamaConfig& config, const std::string& spec) {
  const std::string json = hf_config_json(config, rope_of(spec));
  const bool llama = json.find("LlamaForCausalLM") != std::string::npos;
  CHECK(llama == (json.find("\"model_type\": \"llama\"") != std::string::npos));
  return llama;
}

}  // namespace

TEST_CASE("hub/save_checkpoint: what is written loads with the same bits and the same rope") {
  for (const char* spec :
       {"default", "theta=50000", "theta=12345.678901234567", "linear:factor=4", "dynamic:factor=2",
        "yarn:factor=4",
        "yarn:factor=3.3,attention_factor=1,beta_fast=16,beta_slow=2,truncate=false",
        "yarn:factor=8,mscale=0.7,mscale_all_dim=1",
        "yarn:factor=4,original_max_position_embeddings=16",
        "llama3:factor=4,low_freq_factor=1,high_freq_factor=4,"
        "original_max_position_embeddings=32",
        "longrope:factor=4,short_factor=[1,1,1,1,1,1],long_factor=[1,2,3,4,5,6.1]",
        "longrope:short_mscale=1.1,long_mscale=1.2,factor=2,short_factor=[1,1,1,1,1,1],"
        "long_factor=[1,2,3,4,5,6.1]",
        "proportional:partial_rotary_factor=0.5,factor=2", "yarn_paper:factor=4",
        "ntk_by_parts:factor=4", "default:partial_rotary_factor=0.5", "default:rotary_dim=4",
        "linear:factor=2,rotary_dim=8", "default:logn_length=32"}) {
    check_round_trip(saved_config, spec);
  }
  LlamaConfig config = saved_config;
  config.tie_word_embeddings = true;
  check_round_trip(config, "default");
  config.norm_head = true;
  check_round_trip(config, "default");
  config.tie_word_embeddings = false;
  check_round_trip(config, "default");
  config.rms_norm_eps = 1.0 / 3e5;
  check_round_trip(config, "default");
}

TEST_CASE("hub/save_checkpoint: what has another name there is read as that") {
  check_round_trip(saved_config, "p_rope:p=0.5", "proportional:partial_rotary_factor=0.5,factor=1");
  check_round_trip(saved_config, "default:partial_rotary_factor=1,rotary_offset=0,logit_scale=1",
                   "default");
  check_round_trip(saved_config,
                   "longrope:attention_factor=1.5,original_max_position_embeddings=16,"
                   "short_factor=[1,1,1,1,1,1],long_factor=[1,2,3,4,5,6]",
                   "longrope:attention_factor=1.5,original_max_position_embeddings=16,factor=4,"
                   "short_factor=[1,1,1,1,1,1],long_factor=[1,2,3,4,5,6]");
  // theta s^(d / (d - 2)) is rounded, at most 2^-52 of it, and each frequency is a power of it of
  // exponent -1 to 0, computed to a rounding; the policy's own are computed to a rounding.
  for (const char* spec : {"ntk:factor=4", "ntk:factor=3", "ntk:factor=7.7,rotary_dim=8"}) {
    CAPTURE(spec);
    const AnyFrequency rope = rope_of(spec);
    const JsonDocument document = parse_json(hf_config_json(saved_config, rope), "config.json");
    const HfConfig back = parse_hf_config(document.view());
    CHECK(back.rope.method() == "default");
    CHECK(back.rope.modifiers() == rope.modifiers());
    const RotatedPart part = rotated_part(rope.modifiers(), saved_config.head_dim);
    std::vector<double> ours(static_cast<std::size_t>(part.rotary_dim / 2)), theirs = ours;
    rope.fill({.rotary_dim = part.rotary_dim}, ours);
    back.rope.fill({.rotary_dim = part.rotary_dim}, theirs);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      CHECK(std::abs(theirs[i] / ours[i] - 1) <= 4 * 0x1p-52);
    }
  }
}

TEST_CASE("hub/save_checkpoint: only what LlamaForCausalLM computes has its name") {
  for (const char* spec :
       {"default", "linear:factor=2", "dynamic:factor=2", "yarn:factor=2", "ntk:factor=2",
        "llama3:factor=4,low_freq_factor=1,high_freq_factor=4,original_max_position_embeddings=32",
        "longrope:factor=4,short_factor=[1,1,1,1,1,1],long_factor=[1,2,3,4,5,6]", "p_rope:p=0.5",
        "default:partial_rotary_factor=1"}) {
    CAPTURE(spec);
    CHECK(says_llama(saved_config, spec));
  }
  for (const char* spec :
       {"default:partial_rotary_factor=0.5", "default:rotary_dim=4", "default:logn_length=32",
        "yarn_paper:factor=2", "ntk_by_parts:factor=2",
        "longrope:short_mscale=1,long_mscale=1,factor=4,short_factor=[1,1,1,1,1,1],"
        "long_factor=[1,2,3,4,5,6]"}) {
    CAPTURE(spec);
    CHECK_FALSE(says_llama(saved_config, spec));
  }
  LlamaConfig config = saved_config;
  config.norm_head = true;
  CHECK_FALSE(says_llama(config, "default"));
}

TEST_CASE("hub/save_checkpoint: pairs of an interleaved model become half-split pairs") {
  LlamaConfig config = saved_config;
  config.pair_layout = PairLayout::interleaved;
  for (const char* spec : {"default", "default:rotary_dim=8", "yarn:factor=4"}) {
    CAPTURE(spec);
    const TempDir folder;
    const Llama<float> model = random_llama(config);
    save(config, spec, model.weights, folder.path());
    const Checkpoint loaded = load_hf_folder(folder.path());
    CHECK(loaded.config.pair_layout == PairLayout::half_split);
    // The same rows, in another order within each head; nothing else moves.
    const LlamaLayer<float>& before = model.weights.layers[1];
    const LlamaLayer<float>& after = loaded.weights.layers[1];
    const index_t pairs = rotated_part(loaded.rope.modifiers(), 12).rotary_dim / 2;
    for (index_t k = 0; k < config.hidden_size; ++k) {
      for (index_t i = 0; i < pairs; ++i) {
        REQUIRE(after.q_proj(12 + i, k) == before.q_proj(12 + 2 * i, k));
        REQUIRE(after.q_proj(12 + pairs + i, k) == before.q_proj(12 + 2 * i + 1, k));
        REQUIRE(after.k_proj(pairs + i, k) == before.k_proj(2 * i + 1, k));
      }
      for (index_t i = 2 * pairs; i < 12; ++i) REQUIRE(after.q_proj(i, k) == before.q_proj(i, k));
      REQUIRE(after.v_proj(1, k) == before.v_proj(1, k));
    }
    // The same before saving as on the way.
    Checkpoint converted;
    converted.config = config;
    converted.rope = rope_of(spec);
    converted.weights = random_llama(config).weights;
    to_half_split(converted);
    CHECK(converted.config == loaded.config);
    CHECK(elements_of(config, converted.weights) == elements_of(config, loaded.weights));
    to_half_split(converted);
    CHECK(elements_of(config, converted.weights) == elements_of(config, loaded.weights));
  }
}

TEST_CASE("hub/save_checkpoint: what config.json cannot say is refused, and nothing written") {
  const TempDir folder;
  Llama<float> model = random_llama(saved_config);
  for (const char* spec :
       {"default:logit_scale=1.1", "default:rotary_dim=4,rotary_offset=2",
        "default:partial_rotary_factor=0.5,rotary_offset=2",
        "default:logn_length=32,logn_clip=false",
        "dynamic:factor=2,original_max_position_embeddings=32",
        "llama3:factor=4,low_freq_factor=1,high_freq_factor=4,original_max_position_embeddings=64",
        "p_rope:p=0.5,rotary_dim=8"}) {
    CAPTURE(spec);
    CHECK(outcome_of([&] { save(saved_config, spec, model.weights, folder.path()); }) ==
          "unsupported");
  }
  model.weights.layers[1].q_proj(3, 5) = std::numeric_limits<float>::quiet_NaN();
  const ErrorInfo e =
      error_of([&] { save(saved_config, "default", model.weights, folder.path()); });
  CHECK(e.kind == ErrorClass::numeric);
  CHECK(e.field == "model.layers.1.self_attn.q_proj.weight");
  CHECK(e.where == "element " + std::to_string(3 * 24 + 5));
  CHECK(folder.names().empty());
}

TEST_CASE("hub/save_checkpoint: ids that end a text and the tokenizer's files go along") {
  const TempDir from, folder;
  const Llama<float> model = random_llama(saved_config);
  const AnyFrequency rope = rope_of("default");
  from.write("vocab.json", "{}");
  from.write("merges.txt", "a b\n");
  save_checkpoint({.config = saved_config,
                   .rope = rope,
                   .weights = model.weights,
                   .tokenizer_path = from / "vocab.json",
                   .eos_ids = {3, 9}},
                  folder.path());
  CHECK(load_hf_folder(folder.path()).tokenizer_path == folder / "vocab.json");
  CHECK(read_text(FileSource(folder / "merges.txt"), 100) == "a b\n");
  CHECK(read_eos_ids(folder.path(), saved_config.vocab_size) == std::vector<TokenId>{3, 9});
  CHECK(folder.names() ==
        std::vector<std::string>{"config.json", "merges.txt", "model.safetensors", "vocab.json"});
  // An id that the model does not have would make a folder that does not open.
  CHECK(outcome_of([&] { hf_config_json(saved_config, rope, {70}); }) == "unsupported");
  const std::string path = from.write("config.json", "{}");
  CHECK(outcome_of([&] {
          save_checkpoint({.config = saved_config,
                           .rope = rope,
                           .weights = model.weights,
                           .tokenizer_path = path},
                          folder.path());
        }) == "path");
}

TEST_CASE("hub/save_checkpoint: killed at any system call, old, new or no model, never a mixture") {
  const TempDir folder;
  LlamaConfig config = saved_config;
  config.num_hidden_layers = 1;
  const Llama<float> before = random_llama(config), after = random_llama(config, 2);
  const auto old_elements = elements_of(config, before.weights);
  const auto new_elements = elements_of(config, after.weights);
  REQUIRE(old_elements != new_elements);
  for (const char* spec : {"default", "yarn:factor=4"}) {
    CAPTURE(spec);
    const bool same_config = spec == std::string("default");
    int num_old = 0, num_new = 0, num_none = 0;
    const auto calls = for_each_kill_point(
        [&] { save(config, "default", before.weights, folder.path()); },
        [&] { save(config, spec, after.weights, folder.path()); },
        [&](bool ended) {
          if (!file_exists(folder / "config.json")) {
            REQUIRE(outcome_of([&] { load_hf_folder(folder.path()); }) == "io");
            REQUIRE_FALSE(ended);
            ++num_none;
            return;
          }
          const Checkpoint loaded = load_hf_folder(folder.path());
          const auto elements = elements_of(config, loaded.weights);
          const bool is_new = elements == new_elements;
          REQUIRE((is_new || elements == old_elements));
          REQUIRE(to_text(loaded.rope) == to_text(rope_of(is_new ? spec : "default")));
          if (ended) REQUIRE(is_new);
          ++(is_new ? num_new : num_old);
        });
    if (calls.empty()) {
      MESSAGE("skipped: tracing of processes is not allowed here");
      return;
    }
    CHECK(num_old > 0);
    CHECK(num_new > 0);
    CHECK((num_none == 0) == same_config);
  }
  CHECK(config_text(folder).find("yarn") != std::string::npos);
}
