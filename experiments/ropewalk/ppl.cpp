// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk ppl`: perplexity under one rope setting.

#include <fmt/format.h>

#include "commands.hpp"
#include "grid_options.hpp"
#include "grid_run.hpp"
#include "machine.hpp"
#include "plan.hpp"
#include "results_text.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

constexpr const char* examples =
    "  ropewalk ppl --model model5000.bin --tokenizer tok105.vocab --text stories.txt \\\n"
    "      --document-separator '<|endoftext|>' --length 256\n"
    "  ropewalk ppl --model hf-folder --tokens ids.u16 --rope yarn:factor=4 --lengths 512,1K \\\n"
    "      --nll-out losses.npy\n";

std::vector<std::string> table_line(const CellRow& cell) {
  const auto number = [&cell](const char* key) {
    const Value& value = value_of(cell.results, key);
    if (std::holds_alternative<std::monostate>(value)) return std::string("-");
    if (std::holds_alternative<double>(value)) return fmt::format("{:.4f}", number_of(value));
    if (const auto* text = std::get_if<std::string>(&value)) return *text;
    return to_json(value);
  };
  return {number("length"), number("protocol"), number("windows"), number("tokens"), number("nll"),
          number("se"),     number("ppl"),      number("top1"),    number("bpb")};
}

}  // namespace

int run_ppl(Arguments arguments) {
  GridOptions o;
  Options options("ppl", "Perplexity of a model under one rope setting.", examples);
  add_grid_options(options, o, "One setting, as for sweep [default]",
                   "Losses, float64 [windows, longest length]");
  if (!options.parse(arguments)) return 0;
  check_grid_options(o);

  check_weights_memory(o.model);
  LoadedModel model(o.model);
  const Grid grid = make_grid(o, model);
  if (grid.settings.size() != 1) {
    fail_usage("--rope", std::to_string(grid.settings.size()) + " settings", "one",
               "Use ropewalk sweep for several");
  }
  const ScoringData data = load_data(o.data, model, grid.needs());
  const Evaluation evaluation = make_evaluation(grid, data);
  const Row origin =
      row_origin(o.model, model, data,
                 configuration_hash(grid_configuration(grid, evaluation, o.model, model, data)));
  install_stop_signals();
  const bool quiet = o.model.quiet;
  const Format format = parse_format(o.format);
  if (o.dry_run) {
    print_plan(grid, evaluation, model, {}, format, quiet);
    return 0;
  }
  const RunPlan plan = plan_run(grid, evaluation, model, {});
  check_run_memory(plan, model);
  std::vector<CellRow> cells;
  try {
    run_grid({.grid = grid,
              .evaluation = evaluation,
              .settings = plan.settings,
              .batches = plan.batches,
              .model = model,
              .origin = origin,
              .data = data,
              .command = "ppl",
              .quiet = quiet},
             [&](const Setting&, const CellRow& cell) { cells.push_back(cell); });
  } catch (const Stopped&) {
    remark(quiet, "stopped; ppl keeps nothing: ropewalk sweep with the same options can go on");
    throw;
  }
  for (const CellRow& cell : cells) {
    if (cell.finite()) continue;
    fail({.kind = ErrorClass::numeric,
          .where = "length " + to_json(value_of(cell.results, "length")) + ", window " +
                   to_json(value_of(cell.origin, "nonfinite_window")) + ", position " +
                   to_json(value_of(cell.origin, "nonfinite_position")),
          .field = "nll",
          .found = "a loss that is not finite",
          .expected = "finite losses"});
  }
  const std::vector<CellKey> keys = cells_of(grid);
  KnownCells known;
  for (std::size_t i = 0; i < cells.size(); ++i) known.emplace(keys[i], cells[i]);
  if (const Bins bins = bins_of(o.bins); bins != Bins::none) {
    print(bins_text(bins, keys, known, format));
  } else if (format == Format::table) {
    std::vector<std::vector<std::string>> table = {
        {"length", "protocol", "windows", "tokens", "nll", "se", "ppl", "top1", "bpb"}};
    for (const CellRow& cell : cells) table.push_back(table_line(cell));
    print(aligned_table(table));
  } else {
    print(results_text(keys, known, format));
  }
  flush_output();
  remark(quiet, fmt::format("rope {}; protocol {}", grid.settings[0].canonical,
                            fmt::join(grid.protocols, ", ")));
  if (!grid.nll_files.empty()) remark(quiet, "losses: " + grid.nll_files[0]);
  remark(quiet, fmt::format("peak memory {}, predicted {}",
                            bytes_text(static_cast<double>(process_memory().peak_resident)),
                            bytes_text(static_cast<double>(plan.memory.peak()))));
  remark(quiet, "next: ropewalk sweep compares several settings in one table");
  return 0;
}

}  // namespace cli
