// SPDX-License-Identifier: Apache-2.0
#include "loaded_model.hpp"

#include <limits>

#include <sched.h>

#include "ropewalk/hub/checkpoint.hpp"

#include "embedded_model.hpp"
#include "kernels.hpp"
#include "output.hpp"
#include "train_state.hpp"

namespace cli {

namespace {

/// Processors that this process may use.
index_t processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int count = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return count < 1 ? 1 : count;
}

index_t thread_count(const ModelOptions& options) {
  if (!options.threads) return processors();
  if (*options.threads > 4096) {
    fail_usage("--threads", std::to_string(*options.threads), "1 to 4096");
  }
  return static_cast<index_t>(*options.threads);
}

/// A checkpoint's path, or the name of the embedded one.
template <class T>
CheckpointOf<T> load_named(const std::string& name) {
  if (file_exists(name + "/" + train_state_name) && !file_exists(name + "/config.json")) {
    fail({.kind = ErrorClass::state,
          .file = name,
          .found = "a training run that has not ended",
          .expected = "a checkpoint",
          .fix = "Give the run's command again: it goes on where it was stopped"});
  }
  return name == embedded_name ? load_embedded<T>() : load_checkpoint<T>(name);
}

/// Loads the checkpoint into `out`, all but the model itself; what is left of it is returned.
template <class T>
ModelAs<T> load_model(const ModelOptions& options, LoadedModel& out) {
  CheckpointOf<T> checkpoint = load_named<T>(options.model);
  for (const std::string& note : checkpoint.notes) {
    remark(options.quiet, "note: " + options.model + ": " + note);
  }
  if (options.pair_layout != "auto") {
    const PairLayout asked =
        options.pair_layout == "half_split" ? PairLayout::half_split : PairLayout::interleaved;
    if (asked != checkpoint.config.pair_layout) {
      remark(options.quiet, "warning: --pair-layout " + options.pair_layout +
                                " is not the layout of this checkpoint: results will be wrong");
    }
    checkpoint.config.pair_layout = asked;
  }
  out.tokenizer_path = options.tokenizer.empty() ? checkpoint.tokenizer_path : options.tokenizer;
  out.weights_hash = checkpoint.weights_hash;
  out.rope = checkpoint.rope;
  return {.llama = make_llama(std::move(checkpoint.config), std::move(checkpoint.weights)),
          .kernels = choose_kernels(options.isa).kernels<T>()};
}

AnglePrecision parse_precision(const std::string& name) {
  return name == "hf_float32"     ? AnglePrecision::hf_float32
         : name == "ggml_float32" ? AnglePrecision::ggml_float32
                                  : AnglePrecision::exact;
}

}  // namespace

void add_model_options(Options& options, ModelOptions& out) {
  options.text("--model", "PATH", out.model,
               "Hugging Face folder, llama2.c .bin file, or `embedded`: a nano Llama that comes "
               "with ropewalk");
  options.text(
      "--tokenizer", "FILE", out.tokenizer,
      "tokenizer.json, sentencepiece .model, vocab.json beside merges.txt, .vocab, llama2.c "
      "tok*.bin, or `bytes` [what the model's folder brings]");
  options.text("--tokenizer-pattern", "PATTERN", out.tokenizer_pattern,
               "How a vocab.json cuts words: gpt2, qwen2, llama3 or a regular expression");
  options.choice("--special-tokens", {"text", "ids"}, out.special_tokens,
                 "What <|endoftext|> and its like become where the text spells them");
  options.size("--threads", 1, out.threads, "Threads; results do not depend on them [all]");
  options.choice("--dtype", {"f32", "bf16"}, out.dtype, "Arithmetic of the model");
  options.choice("--isa", isa_choices(), out.isa,
                 "Instruction set; results do not depend on it, but for the sums of bf16 by amx");
  options.choice("--angles", {"exact", "hf_float32", "ggml_float32"}, out.angles,
                 "Rotation angles: exact, or with the rounding of transformers or ggml");
  options.choice("--pair-layout", {"auto", "half_split", "interleaved"}, out.pair_layout,
                 "Channels that rotate together, against what the checkpoint says");
  options.natural("--seed", out.seed, "Seed of everything random [0]");
  options.flag("--quiet", out.quiet, "No progress, remarks and hints on stderr");
}

LoadedModel::LoadedModel(const ModelOptions& options) : threads(thread_count(options)) {
  if (options.model.empty()) {
    fail_usage("--model", "nothing",
               "a Hugging Face folder, a llama2.c .bin file, or `embedded`: the model that comes "
               "with ropewalk");
  }
  choose_kernels(options.isa);  // refuses before anything is read
  precision = parse_precision(options.angles);
  path = options.model;
  with_dtype(options.dtype, [&]<class T>(T) { model = load_model<T>(options, *this); });
  tokenizer_options = {.special_tokens = options.special_tokens == "ids" ? SpecialTokens::as_ids
                                                                         : SpecialTokens::as_text,
                       .pattern = options.tokenizer_pattern};
  rope_defaults = model_rope(rope, config().max_position_embeddings);
}

const LlamaConfig& LoadedModel::config() const {
  return visit([](const auto& m) -> const LlamaConfig& { return m.llama.config; });
}

const char* LoadedModel::isa() const {
  return visit([](const auto& m) { return m.kernels.isa; });
}

const char* LoadedModel::numerics() const {
  return visit([](const auto& m) { return m.kernels.numerics; });
}

ForwardMemory LoadedModel::memory_of(const BatchShape& batch, index_t workers) const {
  return visit([&]<class T>(const ModelAs<T>& m) {
    return forward_memory<T>(m.llama.config, batch, workers, false);
  });
}

AnyTokenizer LoadedModel::open_tokenizer() const {
  if (tokenizer_path.empty()) {
    fail_usage("--tokenizer", "nothing, and " + path + " brings none",
               "the tokenizer that the model was trained with",
               "Add --tokenizer FILE (`bytes` for a model of UTF-8 bytes), or give token ids with "
               "--tokens");
  }
  AnyTokenizer tokenizer = ropewalk::open_tokenizer(tokenizer_path, tokenizer_options);
  check_vocab_size(tokenizer.vocab_size(), tokenizer_path, config().vocab_size, path);
  return tokenizer;
}

bool depends_on_length(const AnyFrequency& policy) {
  return policy.length_key(1) != policy.length_key(std::numeric_limits<std::int64_t>::max() / 2);
}

FrequencyPlan plan_of(const Setting& setting, RotaryShape shape) {
  try {
    return make_frequency_plan(setting.policy, shape);
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    if (info.kind == ErrorClass::config) info.kind = ErrorClass::usage;
    if (info.where.empty()) info.where = "rope spec " + escaped(setting.arg);
    fail(std::move(info));
  }
}

std::vector<Setting> parse_settings(const std::vector<std::string>& specs,
                                    const LoadedModel& model) {
  std::vector<Setting> settings;
  for (const std::string& spec : specs) {
    for (const std::string& arg : expand_rope_spec(spec)) {
      for (const Setting& other : settings) {
        if (other.arg == arg) fail_usage("--rope", escaped(arg) + " twice", "each setting once");
      }
      Setting s{.arg = arg,
                .policy = arg == "default" ? model.rope : parse_rope(arg, model.rope_defaults)};
      s.canonical = to_text(s.policy);
      s.depends_on_length = depends_on_length(s.policy);
      plan_of(s, {.rotary_dim = model.config().head_dim, .seq_len = 1});
      settings.push_back(std::move(s));
    }
  }
  return settings;
}

namespace {

ModelFacts facts_of(const LlamaConfig& config, const AnyFrequency& rope) {
  return {.rope = rope,
          .defaults = model_rope(rope, config.max_position_embeddings),
          .head_dim = config.head_dim};
}

}  // namespace

ModelFacts read_config_facts(const std::string& path) {
  const JsonDocument document = read_json(FileSource(path));
  const HfConfig config = parse_hf_config(document.view());
  for (const std::string& note : config.notes) remark(false, "note: " + path + ": " + note);
  return facts_of(config.config, config.rope);
}

ModelFacts read_model_facts(const std::string& path) {
  if (is_directory(path)) return read_config_facts(path + "/config.json");
  const Checkpoint checkpoint = load_checkpoint(path);
  return facts_of(checkpoint.config, checkpoint.rope);
}

Checkpoint load_float_checkpoint(const std::string& path) { return load_named<float>(path); }

AnyTokenizer open_tokenizer_file(const std::string& path, const TokenizerOptions& options) {
  return ropewalk::open_tokenizer(path, options);
}

}  // namespace cli
