// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk train`: trains a Llama, or trains one on, and writes it as a checkpoint.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/hub/half_split.hpp"
#include "ropewalk/hub/save_checkpoint.hpp"
#include "ropewalk/io/record_log.hpp"
#include "ropewalk/rope/rope_spec.hpp"
#include "ropewalk/train/cost.hpp"
#include "ropewalk/train/init_weights.hpp"
#include "ropewalk/train/trainer.hpp"

#include "args.hpp"
#include "build_facts.hpp"
#include "commands.hpp"
#include "grid.hpp"
#include "kernels.hpp"
#include "loaded_model.hpp"
#include "machine.hpp"
#include "manifest.hpp"
#include "measure/machine_limits.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "stop_signal.hpp"
#include "train_data.hpp"
#include "train_plan.hpp"
#include "train_state.hpp"
#include "train_validation.hpp"

namespace cli {

namespace {

constexpr const char* examples =
    "  ropewalk train --preset nano --out nano\n"
    "  ropewalk train --preset micro --text book.txt --tokenizer tokenizer.json --out micro\n"
    "  ropewalk train --init nano --rope theta=1e5 --length 1K --tokens 600K --out nano-1e5\n"
    "  ropewalk train --preset nano --stages curriculum.json --out nano-curriculum\n";

/// What the run starts from.
struct Start {
  LlamaConfig config = {};
  AnyFrequency rope = {};  ///< of the model
  LlamaWeights<float> weights = {};
  AdamWState optimizer = {};
  std::string from = {};  ///< for the manifest: preset and seed, or a checkpoint's hash
  std::string tokenizer_path = {};
};

/// The shape of a preset, or the checkpoint of --init.
Start make_start(const TrainOptions& options) {
  Start start;
  if (options.init.empty()) {
    start.config = train_preset(options.preset).config;
    start.rope = parse_rope("default:rope_theta=10000", ModelRope{});
    start.tokenizer_path = options.tokenizer;
    start.from = "preset " + options.preset;
    return start;
  }
  Checkpoint checkpoint = load_float_checkpoint(options.init);
  for (const std::string& note : checkpoint.notes) {
    remark(options.quiet, "note: " + options.init + ": " + note);
  }
  to_half_split(checkpoint);  // as it will be saved, so that a state fits what is
  start.config = checkpoint.config;
  start.rope = checkpoint.rope;
  start.tokenizer_path = options.tokenizer.empty() ? checkpoint.tokenizer_path : options.tokenizer;
  start.weights = std::move(checkpoint.weights);
  start.optimizer = make_adamw_state(start.config);
  start.from = "weights " + hash_text(checkpoint.weights_hash);
  const std::string state = options.init + "/" + train_state_name;
  if (options.optimizer == "keep" && file_exists(state)) {
    if (auto kept = load_train_state(state, {}, start.config)) {
      start.optimizer = std::move(kept->optimizer);
      start.from += " with optimizer of step " + std::to_string(kept->position.step);
    }
  }
  return start;
}

/// The tokenizer of the texts, if any are read; a preset gets its vocabulary.
std::optional<AnyTokenizer> open_start_tokenizer(const TrainOptions& options, bool reads_text,
                                                 Start& start) {
  if (!reads_text) return std::nullopt;
  if (start.tokenizer_path.empty()) start.tokenizer_path = "bytes";
  AnyTokenizer tokenizer = open_tokenizer_file(start.tokenizer_path, {});
  if (options.init.empty()) {
    start.config.vocab_size = tokenizer.vocab_size();
  } else {
    check_vocab_size(tokenizer.vocab_size(), start.tokenizer_path, start.config.vocab_size,
                     options.init);
  }
  return tokenizer;
}

/// Whether a stage is made from text.
bool reads_text(const std::vector<TrainStage>& stages) {
  for (const TrainStage& stage : stages) {
    for (const MixturePart& part : stage.mixture) {
      const TrainSource& source = train_source(part.source);
      if (source.reads_text || source.needs_tokenizer) return true;
    }
  }
  return false;
}

/// The length that a stage trains for: that of its sequences, or of their random positions.
index_t trained_length(const TrainStage& stage) {
  return std::max<index_t>(stage.length, stage.position_range);
}

/// The frequencies of a stage. \throws Error(usage | config)
AnyFrequency stage_rope(const TrainStage& stage, const AnyFrequency& before,
                        const LlamaConfig& config) {
  const ModelRope defaults = model_rope(before, config.max_position_embeddings);
  AnyFrequency rope = stage.rope == "default" ? before : parse_rope(stage.rope, defaults);
  make_frequency_plan(rope, {.rotary_dim = config.head_dim, .seq_len = stage.length});
  return rope;
}

/// Rows of the run: printed, and kept for the log until the next checkpoint.
class RowPrinter {
 public:
  explicit RowPrinter(Format format) : format_(format) {}
  void print_row(const Row& row) {
    switch (format_) {
      case Format::jsonl:
        print(to_json(row) + "\n");
        break;
      case Format::csv:
        if (first_) print(csv_header(row));
        print(csv_line(row));
        break;
      case Format::table:
        if (first_) print_header(row);
        print(fmt::format("{:>8} {:>11} {:>9.4f} {:>10.3g} {:>10.3g} {:>9.0f} {:>6.1f}%",
                          number(row, 0), number(row, 1), number(row, 2), number(row, 3),
                          number(row, 4), number(row, 5), 100 * number(row, 6)));
        for (std::size_t i = printed_columns; i < row.size(); ++i) {
          const double loss = number(row, i);
          print(std::isfinite(loss) ? fmt::format(" {:>9.4f}", loss) : fmt::format(" {:>9}", ""));
        }
        print("\n");
        break;
    }
    flush_output();
    first_ = false;
  }

 private:
  static constexpr std::size_t printed_columns = 7;  // before those of validation

  static void print_header(const Row& row) {
    print(fmt::format("{:>8} {:>11} {:>9} {:>10} {:>10} {:>9} {:>7}", "step", "tokens", "loss",
                      "lr", "grad_norm", "tok_s", "share"));
    for (std::size_t i = printed_columns; i < row.size(); ++i) {
      print(fmt::format(" {:>9}", row[i].first));
    }
    print("\n");
  }
  static double number(const Row& row, std::size_t i) { return number_of(row.at(i).second); }

  Format format_;
  bool first_ = true;
};

Row row_of_record(const std::string& record, const std::string& file) {
  const JsonDocument document = parse_json(record, file);
  Row row;
  for (const std::string& key : document.view().as_object().keys) {
    row.emplace_back(key, to_value(document.view().at(key)));
  }
  return row;
}

/// One run, from its position to its end.
class TrainRun {
 public:
  /// `corpus` must outlive it.
  TrainRun(const TrainOptions& options, Start start, std::vector<TrainStage> stages,
           const TrainCorpus& corpus)
      : options_(options),
        start_(std::move(start)),
        stages_(std::move(stages)),
        corpus_(corpus),
        validation_(options, corpus.tokenizer(), start_.config.vocab_size),
        isa_(choose_kernels(options.isa)),
        threads_(static_cast<index_t>(
            options.threads.value_or(std::max(1u, std::thread::hardware_concurrency())))),
        printer_(parse_format(options.format)) {
    check_stages();
    open_folder();
  }

  void run() {
    AnyFrequency rope = start_.rope;
    LlamaConfig config = start_.config;
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      rope = stage_rope(stages_[s], rope, config);
      config.max_position_embeddings = trained_length(stages_[s]);
      if (static_cast<std::int64_t>(s) < position_.stage) continue;
      options_.dtype == "bf16" ? run_stage<bf16>(s, rope, config)
                               : run_stage<float>(s, rope, config);
    }
    finish(rope, config);
  }

 private:
  std::string path(const char* name) const { return options_.out + "/" + name; }

  /// Whatever a stage may refuse is refused before anything is written.
  void check_stages() {
    AnyFrequency rope = start_.rope;
    LlamaConfig config = start_.config;
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      try {
        rope = stage_rope(stages_[s], rope, config);
        config.max_position_embeddings = trained_length(stages_[s]);
        hf_config_json(config, rope);
        stages_[s].schedule.steps = StageData(stages_[s], corpus_, config.vocab_size, options_.seed,
                                              static_cast<std::uint32_t>(s))
                                        .steps();
      } catch (const Error& error) {
        ErrorInfo info = error.info();
        if (!options_.stages.empty()) {
          info.where = "stage " + std::to_string(s) + (info.where.empty() ? "" : ", " + info.where);
          if (info.file.empty()) info.file = options_.stages;
          if (info.kind == ErrorClass::usage) info.kind = ErrorClass::config;
        }
        fail(std::move(info));
      }
    }
  }

  const char* numerics() const {
    return with_dtype(options_.dtype, [&]<class T>(T) { return isa_.training<T>().numerics; });
  }

  void open_folder() {
    Row configuration = {{"from", start_.from},
                         {"seed", static_cast<std::uint64_t>(options_.seed)},
                         {"texts_hash", hash_text(corpus_.hash())},
                         {"numerics_id", std::string(numerics())},
                         {"kernels", options_.dtype}};
    std::vector<std::string> described;
    for (const TrainStage& stage : stages_) described.push_back(describe(stage));
    configuration.emplace_back("stages", described);
    if (!validation_.empty()) {
      configuration.emplace_back("validation_lengths", validation_.lengths());
      configuration.emplace_back("validation_every", validation_.every());
      configuration.emplace_back("validation_hash", hash_text(validation_.hash()));
    }
    for (const auto& [key, value] : config_row()) configuration.emplace_back(key, value);
    config_hash_ = configuration_hash(configuration);
    const auto compare = [&] { as_state([&] { compare_manifest(options_.out, configuration); }); };
    const bool exists = file_exists(path("manifest.json"));
    if (exists) {
      compare();
    } else {
      refuse_other_folder();
    }
    create_folders(options_.out);
    log_.emplace(path("train.jsonl"));
    remove_unfinished_files();
    if (!exists) {
      write_manifest(options_.out, config_hash_, configuration,
                     {{"version", version_text()},
                      {"git_revision", std::string(ropewalk_build::git_revision)},
                      {"processor", processor_name()},
                      {"started", utc_now()}});
      return;
    }
    auto state = load_train_state(path(train_state_name), config_hash_, start_.config);
    if (!state) return;
    position_ = state->position;
    start_.weights = std::move(state->weights);
    start_.optimizer = std::move(state->optimizer);
    for (const std::string& record : log_->records()) {
      const Row row = row_of_record(record, log_->path());
      const std::int64_t step = std::get<std::int64_t>(row.at(0).second);
      // Rows beyond the checkpoint will come again.
      if (step <= logged_ || step > position_.step) continue;
      printer_.print_row(row);
      logged_ = step;
    }
    remark(options_.quiet,
           fmt::format("goes on after step {} of {}", position_.step, options_.out));
  }

  /// What killed processes left. Only for who holds the folder's log.
  void remove_unfinished_files() const {
    std::error_code ignored;  // what stays costs disk space alone
    for (const auto& entry : std::filesystem::directory_iterator(options_.out, ignored)) {
      if (is_unfinished_file(entry.path().filename().string())) {
        std::filesystem::remove(entry.path(), ignored);
      }
    }
  }

  /// Nothing that somebody else left is replaced. What a killed run of ours leaves before its
  /// manifest is an empty log and an unfinished manifest.
  void refuse_other_folder() const {
    const auto refuse = [&](const std::string& found) {
      fail({.kind = ErrorClass::state,
            .file = options_.out,
            .found = found,
            .expected = "a new folder, an empty one, or that of a training run",
            .fix = "Give another --out"});
    };
    if (!file_exists(options_.out)) return;
    if (!is_directory(options_.out)) refuse("a file");
    for (const auto& entry : std::filesystem::directory_iterator(options_.out)) {
      const std::string name = entry.path().filename().string();
      const bool log = name.starts_with("train.jsonl") &&
                       (name != "train.jsonl" || std::filesystem::is_empty(entry.path()));
      if (!log && !(name.starts_with("manifest.json.") && is_unfinished_file(name))) {
        refuse("a folder with " + escaped(name) + " and no manifest of a run");
      }
    }
  }

  Row config_row() const {
    const LlamaConfig& c = start_.config;
    return {{"hidden_size", std::int64_t{c.hidden_size}},
            {"intermediate_size", std::int64_t{c.intermediate_size}},
            {"num_hidden_layers", std::int64_t{c.num_hidden_layers}},
            {"num_attention_heads", std::int64_t{c.num_attention_heads}},
            {"num_key_value_heads", std::int64_t{c.num_key_value_heads}},
            {"head_dim", std::int64_t{c.head_dim}},
            {"vocab_size", std::int64_t{c.vocab_size}},
            {"tie_word_embeddings", c.tie_word_embeddings},
            {"norm_head", c.norm_head}};
  }

  /// T: what operands of products are stored as.
  template <class T>
  void run_stage(std::size_t s, const AnyFrequency& rope, const LlamaConfig& config) {
    const TrainStage& stage = stages_[s];
    StageData data(stage, corpus_, config.vocab_size, options_.seed, static_cast<std::uint32_t>(s));
    if (position_.stage_step > 0) {
      data.resume(position_.dealt);
    } else if (stage.fresh_optimizer) {
      start_.optimizer = make_adamw_state(config);
    }
    const LengthFrequencies frequencies(rope, config.head_dim);
    Trainer trainer(make_llama(config, std::move(start_.weights)), std::move(start_.optimizer),
                    isa_.training<T>(), threads_.executor(),
                    {.optimizer = stage.optimizer,
                     .mask_documents = stage.mask_documents,
                     .reset_positions = stage.reset_positions,
                     .recompute = options_.recompute,
                     .tokens_at_once = options_.tokens_at_once.value_or(0)});
    const std::int64_t log_every = options_.log_every.value_or(10);
    const std::int64_t checkpoint_every = options_.checkpoint_every.value_or(100);
    double seconds = 0, flops = 0;  // of the steps since the last row that this process made
    std::int64_t tokens = 0;
    const auto checkpoint = [&] {
      position_.dealt = data.dealt();
      save(trainer.model().weights, trainer.state(), config);
    };
    // Makes the row that is due after a step, once.
    const auto end_step = [&] {
      const bool ends = position_.stage_step == stage.schedule.steps;
      const bool validates = validation_.is_due(position_.step) || (ends && !validation_.empty());
      if (position_.row_steps == 0 || !(position_.step % log_every == 0 || ends || validates)) {
        return;
      }
      const double limit =
          measure::fma_gflops(isa_.limit<T>(), threads_.executor(), measure::TimeBase::wall);
      Row row = {{"step", position_.step},
                 {"tokens", position_.tokens},
                 {"loss", position_.row_loss / static_cast<double>(position_.row_steps)},
                 {"lr", stage.schedule.at(position_.stage_step - 1)},
                 {"grad_norm", position_.gradient_norm},
                 {"tok_s", static_cast<double>(tokens) / seconds},
                 {"share_of_limit", flops / seconds * 1e-9 / limit}};
      add_validation(row, validates, trainer.model(), frequencies);
      printer_.print_row(row);
      rows_.push_back(row);
      seconds = flops = 0;
      tokens = 0;
      position_.row_loss = 0;
      position_.row_steps = 0;
    };
    try {
      end_step();  // of a run that was stopped in its validation
      while (position_.stage_step < stage.schedule.steps) {
        check_stop();
        const double begin = measure::seconds_now(measure::TimeBase::wall);
        const std::vector<TrainingSequence> batch = data.next_batch(position_.stage_step);
        const StepReport report =
            step(trainer, batch, frequencies, stage.schedule.at(position_.stage_step));
        seconds += measure::seconds_now(measure::TimeBase::wall) - begin;
        position_.stage_step += 1;
        position_.step += 1;
        position_.tokens += report.tokens;
        position_.row_loss += report.loss;
        position_.gradient_norm = report.gradient_norm;
        ++position_.row_steps;
        tokens += report.tokens;
        flops += batch_flops(config, stage, batch);
        end_step();
        if (position_.stage_step < stage.schedule.steps && position_.step % checkpoint_every == 0) {
          checkpoint();
        }
      }
    } catch (const Stopped&) {  // between steps, or in a validation, whose row then comes later
      checkpoint();
      remark(options_.quiet,
             fmt::format("stopped after step {}; the same command goes on", position_.step));
      throw;
    }
    position_.stage += 1;
    position_.stage_step = 0;
    position_.dealt.clear();
    save(trainer.model().weights, trainer.state(), config);
    start_.weights = trainer.release_weights();
    start_.optimizer = trainer.release_state();
  }

  /// A loss for each length of validation, null in rows without.
  void add_validation(Row& row, bool validates, const Llama<float>& model,
                      const LengthFrequencies& frequencies) {
    std::vector<double> losses(validation_.lengths().size(), std::nan(""));
    if (validates) {
      losses = validation_.losses(model, frequencies, isa_.f32, threads_.executor());
    }
    for (std::size_t i = 0; i < losses.size(); ++i) {
      row.emplace_back(fmt::format("nll_{}", validation_.lengths()[i]), losses[i]);
    }
  }

  /// As training_flops, of each document that attention stops at.
  static double batch_flops(const LlamaConfig& config, const TrainStage& stage,
                            const std::vector<TrainingSequence>& batch) {
    double flops = 0;
    for (const TrainingSequence& s : batch) {
      if (!stage.mask_documents || s.cu_seqlens.empty()) {
        flops += training_flops(config, std::ssize(s.tokens));
        continue;
      }
      for (std::size_t d = 0; d + 1 < s.cu_seqlens.size(); ++d) {
        flops += training_flops(config, s.cu_seqlens[d + 1] - s.cu_seqlens[d]);
      }
    }
    return flops;
  }

  template <class T>
  StepReport step(Trainer<T>& trainer, const std::vector<TrainingSequence>& batch,
                  const LengthFrequencies& frequencies, double rate) const {
    try {
      return trainer.step(batch, frequencies, rate);
    } catch (const Error& error) {
      ErrorInfo info = error.info();
      if (info.kind == ErrorClass::numeric) {
        info.where = "step " + std::to_string(position_.step + 1);
        info.file = options_.out;
      }
      fail(std::move(info));
    }
  }

  /// Rows first, then the state: rows beyond a state are known by their steps.
  void save(const LlamaWeights<float>& weights, const AdamWState& optimizer,
            const LlamaConfig& config) {
    for (const Row& row : rows_) log_->append(to_json(row));
    rows_.clear();
    save_train_state(path(train_state_name), config_hash_, config, position_, weights, optimizer);
  }

  void finish(const AnyFrequency& rope, const LlamaConfig& config) {
    save_checkpoint({.config = config,
                     .rope = rope,
                     .weights = start_.weights,
                     .tokenizer_path =
                         start_.tokenizer_path == "bytes" ? std::string() : start_.tokenizer_path},
                    options_.out);
    remark(options_.quiet,
           fmt::format("{}: a checkpoint of {} steps and {} tokens; next: ropewalk sweep --model "
                       "{}{} --lengths {}{}",
                       options_.out, position_.step, position_.tokens, options_.out,
                       corpus_.tokenizer() == nullptr     ? " --synthetic"
                       : start_.tokenizer_path == "bytes" ? " --text FILE --tokenizer bytes"
                                                          : " --text FILE",
                       config.max_position_embeddings,
                       corpus_.tokenizer() == nullptr
                           ? "; with --by-distance how far back it looks facts up"
                           : ""));
  }

  const TrainOptions& options_;
  Start start_;
  std::vector<TrainStage> stages_;
  const TrainCorpus& corpus_;
  Validation validation_;
  const IsaTables& isa_;
  ThreadPool threads_;
  RowPrinter printer_;
  std::optional<RecordLog> log_;
  std::vector<Row> rows_;
  std::string config_hash_;
  TrainPosition position_;
  std::int64_t logged_ = 0;
};

}  // namespace

int run_train(Arguments arguments) {
  TrainOptions options;
  Options parser("train",
                 "Trains a Llama with AdamW, from random weights or from a checkpoint, on texts or "
                 "on the synthetic language. The folder of the run is a checkpoint that ropewalk "
                 "and transformers open; the same command goes on where it was stopped.",
                 examples);
  add_train_options(parser, options);
  if (!parser.parse(arguments)) return 0;
  if (options.preset.empty() == options.init.empty()) {
    fail_usage("--preset", options.preset.empty() ? "neither it nor --init" : "both it and --init",
               "one of --preset nano|micro|mini and --init PATH");
  }
  if (options.out.empty()) fail_usage("--out", "nothing", "the folder of the run");
  if (options.threads && *options.threads > 4096) {
    fail_usage("--threads", std::to_string(*options.threads), "1 to 4096");
  }
  choose_kernels(options.isa);
  install_stop_signals();
  Start start = make_start(options);
  const std::int64_t tokens = options.init.empty() ? train_preset(options.preset).tokens : 600'000;
  std::vector<TrainStage> stages =
      train_stages(options, tokens, start.config.max_position_embeddings);
  const std::optional<AnyTokenizer> tokenizer =
      open_start_tokenizer(options, reads_text(stages), start);
  const TrainCorpus corpus(options, stages, tokenizer ? &*tokenizer : nullptr);
  if (options.init.empty()) {
    start.weights = init_weights(start.config, options.seed);
    start.optimizer = make_adamw_state(start.config);
  }
  TrainRun(options, std::move(start), std::move(stages), corpus).run();
  return 0;
}

}  // namespace cli
