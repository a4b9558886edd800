// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk ppl`: perplexity under one rope setting.

#include <fmt/format.h>

#include "commands.hpp"
#include "grid.hpp"
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
    return to_json(value);
  };
  return {number("length"), number("windows"), number("tokens"), number("nll"),
          number("se"),     number("ppl"),     number("top1"),   number("bpb")};
}

}  // namespace

int run_ppl(Arguments arguments) {
  GridOptions o;
  Options options("ppl", "Perplexity of a model under one rope setting.", examples);
  add_grid_options(options, o, "One setting, as for sweep [default]",
                   "Losses, float64 [windows, longest length]");
  if (!options.parse(arguments)) return 0;
  check_grid_options(o);

  LoadedModel model(o.model);
  const Grid grid = make_grid(o, model);
  if (grid.settings.size() != 1) {
    fail_usage("--rope", std::to_string(grid.settings.size()) + " settings", "one",
               "Use ropewalk sweep for several");
  }
  const ScoringData data = load_data(o.data, model, grid.longest());
  const Row origin = row_origin(o.model, model, data,
                                configuration_hash(grid_configuration(grid, o.model, model, data)));
  install_stop_signals();
  std::vector<CellRow> cells;
  run_grid(grid, model, data, origin, {}, o.model.quiet, "ppl",
           [&](std::size_t, const CellRow& cell, bool) { cells.push_back(cell); });
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
  switch (parse_format(o.format)) {
    case Format::jsonl:
      for (const CellRow& cell : cells) print(to_json(cell.whole()) + "\n");
      break;
    case Format::csv:
      print(csv_header(cells.front().results));
      for (const CellRow& cell : cells) print(csv_line(cell.results));
      break;
    case Format::table: {
      std::vector<std::vector<std::string>> table = {
          {"length", "windows", "tokens", "nll", "se", "ppl", "top1", "bpb"}};
      for (const CellRow& cell : cells) table.push_back(table_line(cell));
      print(aligned_table(table));
      break;
    }
  }
  flush_output();
  remark(o.model.quiet,
         fmt::format("rope {}; {} windows of {} tokens; protocol {}", grid.settings[0].canonical,
                     data.windows().count(), data.window_tokens, grid.protocol));
  if (!grid.nll_files.empty()) remark(o.model.quiet, "losses: " + grid.nll_files[0]);
  remark(o.model.quiet, "next: ropewalk sweep compares several settings in one table");
  return 0;
}

}  // namespace cli
