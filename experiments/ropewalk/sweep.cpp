// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk sweep`: the table rope setting x context length -> perplexity.

#include <limits>

#include <fmt/format.h>

#include "commands.hpp"
#include "grid.hpp"
#include "results_folder.hpp"
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
    "  ropewalk sweep ... --nll-out losses.npy      # losses-0.npy, losses-1.npy, ... per spec\n";

/// Rows as they come, or one table at the end.
class SweepTable {
 public:
  SweepTable(Format format, const Grid& grid) : format_(format) {
    std::vector<std::string> header = {"rope"};
    for (const index_t length : grid.lengths) header.push_back(std::to_string(length));
    table_.push_back(std::move(header));
  }
  void add(const Setting& setting, const CellRow& cell) {
    if (format_ == Format::jsonl) print(to_json(cell.whole()) + "\n");
    if (format_ == Format::csv) {
      if (!header_printed_) print(csv_header(cell.results));
      header_printed_ = true;
      print(csv_line(cell.results));
    }
    if (table_.size() == 1 || table_.back().size() == table_.front().size()) {
      table_.push_back({setting.arg});
    }
    const double ppl = number_of(value_of(cell.results, "ppl"));
    const double se = number_of(value_of(cell.results, "se"));
    table_.back().push_back(!cell.finite() ? "nonfinite"
                            : ppl < 1e6    ? fmt::format("{:.4f}", ppl)
                                           : fmt::format("{:.4g}", ppl));
    if (se == se) {
      smallest_error_ = std::min(smallest_error_, se);
      largest_error_ = std::max(largest_error_, se);
    }
  }
  void finish() const {
    if (format_ == Format::table) print(aligned_table(table_));
    flush_output();
  }
  std::string standard_errors() const {
    if (largest_error_ < 0) return "no standard errors (one window)";
    return fmt::format("standard errors of nll {:.2g} to {:.2g} nats", smallest_error_,
                       largest_error_);
  }

 private:
  Format format_;
  bool header_printed_ = false;
  std::vector<std::vector<std::string>> table_;
  double smallest_error_ = std::numeric_limits<double>::infinity();
  double largest_error_ = -1;
};

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
  check_grid_options(o);
  if (!out.empty() && file_exists(out) && !is_directory(out)) {
    fail_usage("--out", out, "a folder, or a name that is free");
  }

  LoadedModel model(o.model);
  const Grid grid = make_grid(o, model);
  const ScoringData data = load_data(o.data, model, grid.longest());
  const Row configuration = grid_configuration(grid, o.model, model, data);
  const std::string config_hash = configuration_hash(configuration);
  const Row origin = row_origin(o.model, model, data, config_hash);
  if (out.empty()) out = "ropewalk-results/sweep-" + config_hash.substr(0, 12);
  install_stop_signals();
  ResultsFolder folder(out, configuration, origin);
  const bool quiet = o.model.quiet;
  remark_resumed(folder, grid.cells(), quiet);

  SweepTable table(parse_format(o.format), grid);
  std::size_t nonfinite = 0;
  try {
    run_grid(grid, model, data, origin, folder.known(), quiet, "sweep",
             [&](std::size_t i, const CellRow& cell, bool is_new) {
               if (is_new) folder.append(cell);
               table.add(grid.settings[i], cell);
               if (!cell.finite()) ++nonfinite;
             });
  } catch (const Stopped&) {
    remark(quiet, "stopped; finished rows are in " + out + ", the same command goes on from there");
    throw;
  }
  table.finish();

  remark(quiet, fmt::format("{} windows of {} tokens; protocol {}: mean over windows x the first L "
                            "positions; {}",
                            data.windows().count(), data.window_tokens, grid.protocol,
                            table.standard_errors()));
  for (std::size_t i = 0; i < grid.nll_files.size(); ++i) {
    remark(quiet, fmt::format("losses: {} = {}", grid.nll_files[i], grid.settings[i].arg));
  }
  remark(quiet, fmt::format("results: {}/results.jsonl (configuration {})", out, config_hash));
  remark(quiet, "next: the same command with --format csv prints all columns, computing nothing");
  if (nonfinite == 0) return 0;
  remark(false, fmt::format("ropewalk: {} of {} cells are not finite: see nonfinite_window and "
                            "nonfinite_position in the rows",
                            nonfinite, grid.cells()));
  return exit_partial;
}

}  // namespace cli
