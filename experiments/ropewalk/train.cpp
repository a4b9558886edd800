// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk train`: trains a Llama, or trains one on, and writes it as a checkpoint.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/hub/checkpoint.hpp"
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

/// Builds the model of a preset, or loads --init.
Start make_start(const TrainOptions& options, std::optional<AnyTokenizer>& tokenizer) {
  Start start;
  start.tokenizer_path = options.tokenizer;
  const auto open = [&] {
    if (options.texts.empty()) return;
    if (start.tokenizer_path.empty()) start.tokenizer_path = "bytes";
    tokenizer.emplace(open_tokenizer_file(start.tokenizer_path, {}));
  };
  if (options.init.empty()) {
    start.config = train_preset(options.preset).config;
    open();
    if (tokenizer) start.config.vocab_size = tokenizer->vocab_size();
    start.rope = parse_rope("default:rope_theta=10000", ModelRope{});
    start.weights = init_weights(start.config, options.seed);
    start.optimizer = make_adamw_state(start.config);
    start.from = "preset " + options.preset;
    return start;
  }
  Checkpoint checkpoint = load_checkpoint(options.init);
  for (const std::string& note : checkpoint.notes) {
    remark(options.quiet, "note: " + options.init + ": " + note);
  }
  start.config = checkpoint.config;
  start.rope = checkpoint.rope;
  if (start.tokenizer_path.empty()) start.tokenizer_path = checkpoint.tokenizer_path;
  open();
  if (tokenizer) {
    check_vocab_size(tokenizer->vocab_size(), start.tokenizer_path, start.config.vocab_size,
                     options.init);
  }
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
        if (first_) {
          print(fmt::format("{:>8} {:>11} {:>9} {:>10} {:>10} {:>9} {:>7}\n", "step", "tokens",
                            "loss", "lr", "grad_norm", "tok_s", "share"));
        }
        print(fmt::format("{:>8} {:>11} {:>9.4f} {:>10.3g} {:>10.3g} {:>9.0f} {:>6.1f}%\n",
                          number(row, 0), number(row, 1), number(row, 2), number(row, 3),
                          number(row, 4), number(row, 5), 100 * number(row, 6)));
        break;
    }
    flush_output();
    first_ = false;
  }

 private:
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
  TrainRun(const TrainOptions& options, Start start, std::vector<TrainStage> stages,
           TrainTexts texts)
      : options_(options),
        start_(std::move(start)),
        stages_(std::move(stages)),
        texts_(std::move(texts)),
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
      config.max_position_embeddings = stages_[s].length;
      if (static_cast<std::int64_t>(s) < position_.stage) continue;
      run_stage(s, rope, config);
    }
    finish(rope, config);
  }

 private:
  std::string path(const char* name) const { return options_.out + "/" + name; }

  /// Whatever a stage may refuse is refused before anything is written.
  void check_stages() const {
    AnyFrequency rope = start_.rope;
    LlamaConfig config = start_.config;
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      rope = stage_rope(stages_[s], rope, config);
      config.max_position_embeddings = stages_[s].length;
      detail::hf_config_json(config, rope);
      StageData(stages_[s], texts_, config.vocab_size, options_.seed, 0);
    }
  }

  void open_folder() {
    Row configuration = {{"from", start_.from},
                         {"seed", static_cast<std::uint64_t>(options_.seed)},
                         {"texts_hash", hash_text(texts_.hash)},
                         {"numerics_id", std::string(numerics_id)},
                         {"kernels", std::string("f32")}};
    std::vector<std::string> described;
    for (const TrainStage& stage : stages_) described.push_back(describe(stage));
    configuration.emplace_back("stages", described);
    for (const auto& [key, value] : config_row()) configuration.emplace_back(key, value);
    config_hash_ = configuration_hash(configuration);
    const auto compare = [&] { as_state([&] { compare_manifest(options_.out, configuration); }); };
    const bool exists = file_exists(path("manifest.json"));
    if (exists) compare();
    create_folders(options_.out);
    log_.emplace(path("train.jsonl"));
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

  void run_stage(std::size_t s, const AnyFrequency& rope, const LlamaConfig& config) {
    const TrainStage& stage = stages_[s];
    StageData data(stage, texts_, config.vocab_size, options_.seed, static_cast<std::uint32_t>(s));
    if (position_.stage_step > 0) {
      data.resume(position_.dealt);
    } else if (stage.fresh_optimizer) {
      start_.optimizer = make_adamw_state(config);
    }
    const LengthFrequencies frequencies(rope, config.head_dim);
    Trainer trainer(make_llama(config, std::move(start_.weights)), std::move(start_.optimizer),
                    isa_.train, threads_.executor(),
                    {.optimizer = stage.optimizer,
                     .mask_documents = stage.mask_documents,
                     .reset_positions = stage.reset_positions,
                     .recompute = options_.recompute,
                     .tokens_at_once = options_.tokens_at_once.value_or(1024)});
    const double step_flops =
        training_flops(config, stage.length) * static_cast<double>(stage.sequences());
    const std::int64_t log_every = options_.log_every.value_or(10);
    const std::int64_t checkpoint_every = options_.checkpoint_every.value_or(100);
    double seconds = 0;  // of the steps since the last row that this process made
    std::int64_t timed = 0;
    const auto checkpoint = [&] {
      position_.dealt = data.dealt();
      save(trainer, config);
    };
    while (position_.stage_step < stage.schedule.steps) {
      try {
        check_stop();
      } catch (const Stopped&) {
        checkpoint();
        remark(options_.quiet,
               fmt::format("stopped after step {}; the same command goes on", position_.step));
        throw;
      }
      const double begin = measure::seconds_now(measure::TimeBase::wall);
      const double rate = stage.schedule.at(position_.stage_step);
      const std::vector<TrainingSequence> batch = data.next_batch();
      const StepReport report = step(trainer, batch, frequencies, rate);
      seconds += measure::seconds_now(measure::TimeBase::wall) - begin;
      position_.stage_step += 1;
      position_.step += 1;
      position_.tokens += report.tokens;
      position_.row_loss += report.loss;
      ++position_.row_steps;
      ++timed;
      const bool ends = position_.stage_step == stage.schedule.steps;
      if (position_.step % log_every == 0 || ends) {
        const double count = static_cast<double>(timed);
        const double limit =
            measure::fma_gflops(isa_.limit<float>(), threads_.executor(), measure::TimeBase::wall);
        const Row row = {{"step", position_.step},
                         {"tokens", position_.tokens},
                         {"loss", position_.row_loss / static_cast<double>(position_.row_steps)},
                         {"lr", rate},
                         {"grad_norm", report.gradient_norm},
                         {"tok_s", count * static_cast<double>(report.tokens) / seconds},
                         {"share_of_limit", count * step_flops / seconds * 1e-9 / limit}};
        printer_.print_row(row);
        rows_.push_back(row);
        seconds = 0;
        timed = 0;
        position_.row_loss = 0;
        position_.row_steps = 0;
      }
      if (ends) break;
      if (position_.step % checkpoint_every == 0) checkpoint();
    }
    position_.stage += 1;
    position_.stage_step = 0;
    position_.dealt.clear();
    save(trainer, config);
    start_.weights = trainer.release_weights();
    start_.optimizer = trainer.release_state();
  }

  StepReport step(Trainer& trainer, const std::vector<TrainingSequence>& batch,
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
  void save(const Trainer& trainer, const LlamaConfig& config) {
    for (const Row& row : rows_) log_->append(to_json(row));
    rows_.clear();
    save_train_state(path(train_state_name), config_hash_, config, position_,
                     trainer.model().weights, trainer.state());
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
                       "{}{} --lengths {}",
                       options_.out, position_.step, position_.tokens, options_.out,
                       options_.texts.empty() ? "" : " --text FILE --tokenizer bytes",
                       config.max_position_embeddings));
  }

  const TrainOptions& options_;
  Start start_;
  std::vector<TrainStage> stages_;
  TrainTexts texts_;
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
  std::optional<AnyTokenizer> tokenizer;
  Start start = make_start(options, tokenizer);
  const std::int64_t tokens = options.init.empty() ? train_preset(options.preset).tokens : 600'000;
  std::vector<TrainStage> stages =
      train_stages(options, tokens, start.config.max_position_embeddings);
  TrainTexts texts;
  if (tokenizer) texts = read_train_texts(options, *tokenizer);
  TrainRun(options, std::move(start), std::move(stages), std::move(texts)).run();
  return 0;
}

}  // namespace cli
