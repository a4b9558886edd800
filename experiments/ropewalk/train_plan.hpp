// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a training run does, stage by stage, as the options and a file of stages say.

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "ropewalk/model/config.hpp"
#include "ropewalk/train/adamw.hpp"
#include "ropewalk/train/learning_rate.hpp"
#include "ropewalk/train/training_sequence.hpp"

#include "args.hpp"
#include "output.hpp"

namespace cli {

/// Part of a stage's data.
struct MixturePart {
  std::string source = {};  ///< a name of train_sources
  double share = 1;         ///< of the tokens
  std::string loss = {};    ///< all, or answers: what is learnt; instructions weigh theirs instead
  std::vector<std::string> texts = {};  ///< files of sources that read them
  double prompt_weight = 0;             ///< of the loss of a prompt's tokens, in instructions
};

/// A source of training data by name.
struct TrainSource {
  std::string_view name;
  std::string_view what;
  bool reads_text = false;
  bool needs_tokenizer = false;  ///< makes text of its own
  bool has_answers = false;
};
inline constexpr TrainSource train_sources[] = {
    {.name = "synthetic", .what = "documents of the synthetic language", .has_answers = true},
    {.name = "passkey", .what = "a passage and its key once more, in it", .has_answers = true},
    {.name = "key-value", .what = "pairs of it, and one of their keys", .has_answers = true},
    {.name = "multi-query", .what = "pairs of it, and all their keys", .has_answers = true},
    {.name = "copy", .what = "symbols of it, twice", .has_answers = true},
    {.name = "text", .what = "texts, packed, windows in random order", .reads_text = true},
    {.name = "text-sorted", .what = "the same, shortest documents first", .reads_text = true},
    {.name = "documents",
     .what = "documents one a sequence, steps of similar length",
     .reads_text = true},
    {.name = "instructions",
     .what = "JSON lines of prompt and response, as documents",
     .reads_text = true},
    {.name = "passkey-text",
     .what = "a number hidden in text",
     .needs_tokenizer = true,
     .has_answers = true},
    {.name = "json_kv",
     .what = "one of many pairs in JSON",
     .needs_tokenizer = true,
     .has_answers = true},
    {.name = "lines",
     .what = "one of many numbered lines",
     .needs_tokenizer = true,
     .has_answers = true},
};
/// The source of that name, which is one of them.
const TrainSource& train_source(std::string_view name);

struct TrainStage {
  std::string rope = "default";        ///< spec; `default`: that of the model so far
  index_t length = 0;                  ///< tokens of a sequence
  index_t batch_tokens = 8192;         ///< of a step: batch_tokens / length sequences
  std::int64_t tokens = 0;             ///< of the stage, rounded up to whole steps
  std::int64_t epochs = 0;             ///< instead of tokens: how often the data is gone through
  LearningRateSchedule schedule = {};  ///< .steps follows from the data
  std::vector<MixturePart> mixture = {};
  AdamWConfig optimizer = {};
  bool mask_documents = true;
  bool reset_positions = true;
  WindowSchedule windows = {};      ///< attention windows that grow
  std::string positions = "plain";  ///< or pose, randpos: random ones of [0, position_range)
  std::int64_t position_range = 0;  ///< of pose and randpos
  index_t position_chunks = 2;      ///< of pose
  bool fresh_optimizer = false;     ///< forget the running means of the stage before
};

/// Options of `ropewalk train`.
struct TrainOptions {
  std::string preset = {}, init = {}, optimizer = "keep", rope = {}, stages = {}, out = {};
  std::vector<std::string> texts = {}, validation_texts = {};
  std::vector<std::int64_t> validation_lengths = {};
  std::string tokenizer = {}, document_separator = {}, bos = "auto";
  std::optional<std::int64_t> validate_every = {}, validation_windows = {};
  std::optional<std::int64_t> length = {}, batch_tokens = {}, tokens = {}, checkpoint_every = {},
                              log_every = {}, threads = {}, tokens_at_once = {};
  static constexpr double unset = std::numeric_limits<double>::quiet_NaN();
  double learning_rate = unset, learning_rate_end = unset, warmup = unset;
  std::string decay = {};
  std::uint64_t seed = 0;
  std::string dtype = "f32", isa = "auto", format = "table";
  bool recompute = false, quiet = false;
};

void add_train_options(Options& options, TrainOptions& out);

/// The shape of a preset (nano, micro, mini), and what it is trained with where the options are
/// silent. The vocabulary is that of the tokenizer in use.
struct TrainPreset {
  LlamaConfig config = {};
  std::int64_t tokens = 0;
};
/// \throws Error(usage) naming the presets
TrainPreset train_preset(const std::string& name);

/// The stages of a run: those of --stages, each with the options and the defaults for what it
/// leaves out, or one made of the options.
/// \param trained_length of the model that is trained on
/// \throws Error(usage | config) naming the field
std::vector<TrainStage> train_stages(const TrainOptions& options, std::int64_t default_tokens,
                                     std::int64_t trained_length);

/// All fields, for the manifest and its comparison.
std::string describe(const TrainStage& stage);

}  // namespace cli
