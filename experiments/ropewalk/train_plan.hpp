// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a training run does, stage by stage, as the options and a file of stages say.

#include <optional>
#include <string>
#include <vector>

#include "ropewalk/model/config.hpp"
#include "ropewalk/train/learning_rate.hpp"
#include "ropewalk/train/trainer.hpp"

#include "args.hpp"
#include "output.hpp"

namespace cli {

/// Part of a stage's data.
struct MixturePart {
  std::string source = {};  ///< a name of train_sources
  double share = 1;         ///< of the tokens
};

/// Sources of training data by name, and what they are.
struct TrainSource {
  std::string_view name;
  std::string_view what;
};
inline constexpr TrainSource train_sources[] = {
    {"synthetic", "documents of the synthetic language, one a sequence"},
    {"text", "the texts of --text, tokenized, packed, in a random order each epoch"},
    {"text-sorted", "the same, shortest documents first"},
};

struct TrainStage {
  std::string rope = "default";        ///< spec; `default`: that of the model so far
  index_t length = 0;                  ///< tokens of a sequence
  index_t batch_tokens = 8192;         ///< of a step: batch_tokens / length sequences
  std::int64_t tokens = 0;             ///< of the stage, rounded up to whole steps
  LearningRateSchedule schedule = {};  ///< .steps follows from the above
  std::vector<MixturePart> mixture = {};
  AdamWConfig optimizer = {};
  bool mask_documents = true;
  bool reset_positions = true;
  bool fresh_optimizer = false;  ///< forget the running means of the stage before

  index_t sequences() const { return batch_tokens / length; }
};

/// Options of `ropewalk train`.
struct TrainOptions {
  std::string preset = {}, init = {}, optimizer = "keep", rope = {}, stages = {}, out = {};
  std::vector<std::string> texts = {};
  std::string tokenizer = {}, document_separator = {}, bos = "auto";
  std::optional<std::int64_t> length = {}, batch_tokens = {}, tokens = {}, checkpoint_every = {},
                              log_every = {}, threads = {}, tokens_at_once = {};
  double learning_rate = 0, learning_rate_end = -1, warmup = -1;
  std::string decay = {};
  std::uint64_t seed = 0;
  std::string isa = "auto", format = "table";
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
