// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk sweep`: the table rope setting x context length -> perplexity.

#include <limits>

#include <fmt/format.h>

#include "ropewalk/io/atomic_file.hpp"

#include "commands.hpp"
#include "embedded_model.hpp"
#include "grid_options.hpp"
#include "grid_run.hpp"
#include "machine.hpp"
#include "plan.hpp"
#include "progress.hpp"
#include "results_folder.hpp"
#include "results_text.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

constexpr int exit_partial = 1;  // all cells done, some of them not finite

constexpr const char* examples =
    "  ropewalk sweep --model model5000.bin --tokenizer tok105.vocab --text stories.txt \\\n"
    "      --document-separator '<|endoftext|>' \\\n"
    "      --rope default ntk:factor=4 theta=50000 yarn:factor=4 --lengths 128,256,512,1024\n"
    "  ropewalk sweep --model hf-folder --tokens ids.u16 --rope 'theta={1e4,1e5,1e6}' \\\n"
    "      --lengths 1K,2K --windows 8 --format csv > table.csv\n"
    "  ropewalk sweep ... --dry-run                 # tokens, operations, memory, time\n"
    "  ropewalk sweep ... --protocol prefix,hf,llamacpp --stride 256\n"
    "  ropewalk sweep ... --nll-out losses.npy      # losses-0.npy, losses-1.npy, ... per spec\n";

/// Rows as they come, or one table at the end.
class SweepOutput {
 public:
  SweepOutput(Format format, const Grid& grid, Bins bins)
      : format_(format), bins_(bins), cells_(cells_of(grid)) {}

  void add(const CellKey& key, const CellRow& cell) {
    if (format_ == Format::jsonl && bins_ == Bins::none) print(to_json(cell.whole()) + "\n");
    if (format_ == Format::csv && bins_ == Bins::none) {
      print((known_.empty() ? csv_header(cell.results) : "") + csv_line(cell.results));
    }
    known_.emplace(key, cell);
    const double se = number_of(value_of(cell.results, "se"));
    if (se == se) {
      smallest_error_ = std::min(smallest_error_, se);
      largest_error_ = std::max(largest_error_, se);
    }
    if (!cell.finite()) ++nonfinite_;
  }
  void finish() const {
    if (bins_ != Bins::none) {
      print(bins_text(bins_, cells_, known_, format_));
    } else if (format_ == Format::table) {
      print(results_table(cells_, known_));
    }
    flush_output();
  }
  std::string csv() const { return results_csv(cells_, known_); }
  std::size_t nonfinite() const { return nonfinite_; }
  std::string standard_errors() const {
    if (largest_error_ < 0) return "no standard errors (too few tokens)";
    return fmt::format("standard errors of nll {:.2g} to {:.2g} nats", smallest_error_,
                       largest_error_);
  }

 private:
  Format format_;
  Bins bins_;
  std::vector<CellKey> cells_;
  KnownCells known_;
  std::size_t nonfinite_ = 0;
  double smallest_error_ = std::numeric_limits<double>::infinity();
  double largest_error_ = -1;
};

/// Fields of the manifest that say where and how the folder was begun.
Row environment_of(const Row& origin, Arguments arguments, LoadedModel& model) {
  Row row = origin;
  std::vector<std::string> words = {"ropewalk", "sweep"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  row.emplace_back("command", words);
  row.emplace_back("threads", std::int64_t{model.threads.executor().workers()});
  row.emplace_back("processor", processor_name());
  row.emplace_back("host", host_name());
  row.emplace_back("started", utc_now());
  return row;
}

/// Cells that a folder of this configuration holds, read without touching it.
KnownCells known_before(const std::string& path, const std::string& config_hash) {
  if (!file_exists(path + "/manifest.json")) return {};
  try {
    StoredResults stored = read_results(path);
    return stored.config_hash == config_hash ? std::move(stored.known) : KnownCells();
  } catch (const Error&) {
    return {};  // opening the folder will say what is wrong
  }
}

void remark_resumed(const ResultsFolder& folder, std::size_t cells, bool quiet) {
  if (const auto& torn = folder.torn_tail()) {
    remark(quiet, fmt::format("note: the last record was incomplete; its {} bytes are kept in {}",
                              torn->bytes, torn->kept_in));
  }
  if (!folder.known().empty()) {
    remark(quiet, fmt::format("resuming {}: {} of {} cells are there", folder.path(),
                              folder.known().size(), cells));
  }
}

/// Whether nothing says what is to be swept: no model, no data.
bool arguments_are_default(const GridOptions& o) {
  return o.model.model.empty() && o.data.texts.empty() && o.data.tokens.empty();
}

/// The model that is part of the executable on its own language: what its trained length of 256
/// tokens means, and what bases and methods make of it up to 16 times that, beside the ideal.
void set_default_sweep(GridOptions& o) {
  o.model.model = embedded_name;
  o.data.synthetic = true;
  if (!o.data.windows) o.data.windows = 8;
  if (o.lengths.empty()) o.lengths = {128, 256, 512, 1024, 2048, 4096};
  if (o.rope == std::vector<std::string>{"default"}) {
    o.rope = {"default",          "theta=2e4",        "theta=1e5",     "theta=1e6",
              "linear:factor=4",  "linear:factor=16", "ntk:factor=4",  "ntk:factor=16",
              "dynamic:factor=2", "yarn:factor=4",    "yarn:factor=16"};
  }
}

}  // namespace

int run_sweep(Arguments arguments) {
  GridOptions o;
  std::string out;
  Options options("sweep",
                  "Perplexity of a model over rope settings and context lengths. Results are kept "
                  "in a folder; the same command goes on where it was stopped.",
                  examples);
  add_grid_options(
      options, o, "Settings: default, theta=5e5, ntk:factor=4, ...; {a,b} sweeps [default]",
      "Losses, float64 [windows, longest length]; several settings: FILE-0.npy, FILE-1.npy, ... "
      "in order");
  options.text("--out", "DIR", out, "Results folder [ropewalk-results/sweep-HASH]");
  if (!options.parse(arguments)) return 0;
  if (arguments_are_default(o)) set_default_sweep(o);
  check_grid_options(o);
  if (!out.empty() && file_exists(out) && !is_directory(out)) {
    fail_usage("--out", out, "a folder, or a name that is free");
  }

  check_weights_memory(o.model);
  LoadedModel model(o.model);
  const Grid grid = make_grid(o, model);
  const ScoringData data = load_data(o.data, model, grid.needs());
  const Evaluation evaluation = make_evaluation(grid, data);
  const Row configuration = grid_configuration(grid, evaluation, o.model, model, data);
  const std::string config_hash = configuration_hash(configuration);
  const Row origin = row_origin(o.model, model, data, config_hash);
  if (out.empty()) out = "ropewalk-results/sweep-" + config_hash.substr(0, 12);
  install_stop_signals();
  const bool quiet = o.model.quiet;
  const KnownCells known = known_before(out, config_hash);
  if (o.dry_run) {
    print_plan(grid, evaluation, model, known, parse_format(o.format), quiet);
    return 0;
  }
  const RunPlan plan = plan_run(grid, evaluation, model, known);
  check_run_memory(plan, model);
  ResultsFolder folder(out, configuration, environment_of(origin, arguments, model));
  remark_resumed(folder, grid.cells(), quiet);

  SweepOutput output(parse_format(o.format), grid, bins_of(o.bins));
  try {
    run_grid({.grid = grid,
              .evaluation = evaluation,
              .settings = plan.settings,
              .batches = plan.batches,
              .model = model,
              .origin = origin,
              .data = data,
              .folder = &folder,
              .command = "sweep",
              .quiet = quiet},
             [&](const Setting& setting, const CellRow& cell) {
               output.add({setting.arg, std::get<std::string>(value_of(cell.results, "protocol")),
                           std::get<std::int64_t>(value_of(cell.results, "length"))},
                          cell);
             });
  } catch (const Stopped&) {
    remark(quiet, "stopped; what is done is in " + out + ", the same command goes on from there");
    throw;
  }
  output.finish();
  ropewalk::write_file(out + "/results.csv", output.csv());
  folder.remove_losses();

  const std::string text = grid.needs().prefix ? fmt::format("{} windows of {} tokens; ",
                                                             data.windows(), data.window_tokens)
                                               : std::string();
  remark(quiet, fmt::format("{}protocol {}; {}", text, fmt::join(grid.protocols, ", "),
                            output.standard_errors()));
  for (std::size_t i = 0; i < grid.nll_files.size(); ++i) {
    remark(quiet, fmt::format("losses: {} = {}", grid.nll_files[i], grid.settings[i].arg));
  }
  remark(quiet, fmt::format("peak memory {}, predicted {}",
                            bytes_text(static_cast<double>(process_memory().peak_resident)),
                            bytes_text(static_cast<double>(plan.memory.peak()))));
  remark(quiet, fmt::format("results: {}/results.jsonl and results.csv (configuration {})", out,
                            config_hash));
  if (o.model.model == embedded_name && o.data.synthetic) {
    remark(quiet, "(floor): what an ideal predictor of this language reaches, docs/synthetic.md");
    remark(quiet,
           "next: ropewalk sweep --model FOLDER --text FILE --rope default theta=1e6 "
           "yarn:factor=4 --lengths 512,2K,8K does the same with a checkpoint of yours");
  }
  remark(quiet, "next: ropewalk export " + out + " prints all columns, computing nothing");
  if (output.nonfinite() == 0) return 0;
  remark(false, fmt::format("ropewalk: {} of {} cells are not finite: see nonfinite_window and "
                            "nonfinite_position in the rows",
                            output.nonfinite(), grid.cells()));
  return exit_partial;
}

}  // namespace cli
