// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A model with all that is needed to run it, as the options ask for.

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/hub/checkpoint_data.hpp"
#include "ropewalk/model/cost.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/rope_spec.hpp"
#include "ropewalk/rope/rotary_rows.hpp"
#include "ropewalk/text/any_tokenizer.hpp"

#include "args.hpp"

namespace cli {

/// Options of every command that runs a model.
struct ModelOptions {
  std::string model = {};
  std::string tokenizer = {};
  std::string tokenizer_pattern = {};
  std::string special_tokens = "text";
  std::optional<std::int64_t> threads = {};
  std::string dtype = "f32";
  std::string isa = "auto";
  std::string angles = "exact";
  std::string pair_layout = "auto";
  std::uint64_t seed = 0;
  bool quiet = false;
};

void add_model_options(Options& options, ModelOptions& out);

/// A model whose matrices, keys and values are stored as T, and the kernels that run it.
template <class T>
struct ModelAs {
  Llama<T> llama = {};
  KernelTable<T> kernels = {};
};

/// Ready to run; not movable, because executors refer to its threads.
struct LoadedModel {
  explicit LoadedModel(const ModelOptions& options);
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  std::variant<ModelAs<float>, ModelAs<bf16>> model = {};
  AnyFrequency rope = {};        ///< what the checkpoint was trained with
  ModelRope rope_defaults = {};  ///< what specs may leave out
  std::string path = {};
  std::string tokenizer_path = {};  ///< as given, else what the model's folder brings, else empty
  TokenizerOptions tokenizer_options = {};
  std::uint64_t weights_hash = 0;
  AnglePrecision precision = AnglePrecision::exact;
  ThreadPool threads;

  /// Calls call(const ModelAs<T>&) for the model as it was loaded.
  template <class Call>
  decltype(auto) visit(Call&& call) const {
    return std::visit(call, model);
  }
  const LlamaConfig& config() const;
  const char* isa() const;
  const char* numerics() const;  ///< the numerics_id of its results
  /// forward_memory() without a cache, of the model's dtype.
  ForwardMemory memory_of(const BatchShape& batch, index_t workers) const;

  /// \throws Error(usage) when there is none, Error(mismatch) when it does not fit the model.
  AnyTokenizer open_tokenizer() const;
};

/// What a model says of its rotation.
struct ModelFacts {
  AnyFrequency rope = {};
  ModelRope defaults = {};
  std::optional<std::int64_t> head_dim = {};
};

/// From a config.json, without its weights; remarks go to stderr.
ModelFacts read_config_facts(const std::string& path);
/// From whatever --model takes; a folder's weights are not read.
ModelFacts read_model_facts(const std::string& path);

/// One frequency policy to run.
struct Setting {
  std::string arg = {};  ///< as given
  AnyFrequency policy = {};
  std::string canonical = {};
  bool depends_on_length = false;
};

/// The settings of `--rope` arguments; `{a,b}` gives several, `default` is the checkpoint's own.
/// \throws Error(usage), also for a policy that does not fit the model's heads or comes twice.
std::vector<Setting> parse_settings(const std::vector<std::string>& specs,
                                    const LoadedModel& model);

/// Whether a policy's frequencies depend on the length of the sequence.
bool depends_on_length(const AnyFrequency& policy);

/// \throws Error(usage) instead of Error(config): the policy came from the command line.
FrequencyPlan plan_of(const Setting& setting, RotaryShape shape);

/// As ropewalk::load_checkpoint (of `embedded` too) and ropewalk::open_tokenizer, compiled once for
/// all commands.
Checkpoint load_float_checkpoint(const std::string& path);
AnyTokenizer open_tokenizer_file(const std::string& path, const TokenizerOptions& options);

}  // namespace cli
