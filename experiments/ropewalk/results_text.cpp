// SPDX-License-Identifier: Apache-2.0
#include "results_text.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace cli {

namespace {

std::string ppl_text(const CellRow& cell) {
  const double ppl = number_of(value_of(cell.results, "ppl"));
  return !cell.finite() ? "nonfinite"
         : ppl < 1e6    ? fmt::format("{:.4f}", ppl)
                        : fmt::format("{:.4g}", ppl);
}

const CellRow* find_cell(const KnownCells& known, const CellKey& key) {
  const auto it = known.find(key);
  return it == known.end() ? nullptr : &it->second;
}

template <class T>
void add_new(std::vector<T>& list, const T& value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

/// A list of numbers of a row; what was written without fractions comes back as integers.
std::vector<double> list_of(const CellRow& cell, const char* key) {
  const Value& value = value_of(cell.origin, key);
  if (const auto* reals = std::get_if<std::vector<double>>(&value)) return *reals;
  if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&value)) {
    return {integers->begin(), integers->end()};
  }
  return {};
}

/// Last line: the perplexity of the ideal predictor, where it is known.
void add_floor_line(const std::vector<CellKey>& cells, const KnownCells& known,
                    std::size_t name_columns, std::vector<std::vector<std::string>>& table) {
  std::vector<std::string> line(name_columns);
  line[0] = "(floor)";
  for (std::size_t l = 0; line.size() < table[0].size(); ++l) {
    const CellRow* cell = find_cell(known, cells[l]);
    const double floor =
        cell == nullptr ? std::nan("") : number_of(value_of(cell->results, "floor"));
    if (floor != floor) return;
    line.push_back(fmt::format("{:.4f}", std::exp(floor)));
  }
  table.push_back(std::move(line));
}

/// A bin of a cell: its row, and the same as cells of a table.
struct BinLine {
  Row row;
  std::vector<std::string> cells;
};

/// [from, 2 from).
std::string range_text(std::int64_t from) { return fmt::format("{}-{}", from, 2 * from - 1); }

/// Losses by the number of tokens seen before.
std::vector<BinLine> position_lines(const CellKey& key, const CellRow& cell) {
  const std::vector<double> contexts = list_of(cell, "bin_context");
  const std::vector<double> tokens = list_of(cell, "bin_tokens");
  const std::vector<double> means = list_of(cell, "bin_nll");
  const std::vector<double> floors = list_of(cell, "bin_floor");  // as many, or none
  const std::vector<double> errors = list_of(cell, "bin_gap_se");
  std::vector<BinLine> lines;
  for (std::size_t b = 0; b < std::min({contexts.size(), tokens.size(), means.size()}); ++b) {
    const auto from = static_cast<std::int64_t>(contexts[b]);
    const auto count = static_cast<std::int64_t>(tokens[b]);
    lines.push_back({{{"rope", value_of(cell.results, "rope")},
                      {"rope_arg", key.rope_arg},
                      {"protocol", key.protocol},
                      {"length", key.length},
                      {"context_from", from},
                      {"context_to", 2 * from - 1},
                      {"tokens", count},
                      {"nll", means[b]},
                      {"floor", b < floors.size() ? Value(floors[b]) : Value()},
                      {"gap_se", b < errors.size() ? Value(errors[b]) : Value()}},
                     {key.rope_arg, key.protocol, std::to_string(key.length), range_text(from),
                      std::to_string(count), fmt::format("{:.4f}", means[b]),
                      b < floors.size() ? fmt::format("{:.4f}", floors[b]) : "-"}});
  }
  return lines;
}

/// Answers by their distance from the fact; none where none are known.
std::vector<BinLine> distance_lines(const CellKey& key, const CellRow& cell) {
  const std::vector<double> distances = list_of(cell, "distance");
  const std::vector<double> answers = list_of(cell, "distance_answers");
  const std::vector<double> exact = list_of(cell, "distance_exact");
  const std::vector<double> errors = list_of(cell, "distance_exact_se");
  const std::vector<double> means = list_of(cell, "distance_nll");
  std::vector<BinLine> lines;
  for (std::size_t b = 0;
       b < std::min({distances.size(), answers.size(), exact.size(), errors.size(), means.size()});
       ++b) {
    const auto from = static_cast<std::int64_t>(distances[b]);
    const auto count = static_cast<std::int64_t>(answers[b]);
    lines.push_back({{{"rope", value_of(cell.results, "rope")},
                      {"rope_arg", key.rope_arg},
                      {"length", key.length},
                      {"distance_from", from},
                      {"distance_to", 2 * from - 1},
                      {"answers", count},
                      {"exact", exact[b]},
                      {"exact_se", errors[b]},
                      {"nll", means[b]}},
                     {key.rope_arg, std::to_string(key.length), range_text(from),
                      std::to_string(count), fmt::format("{:.3f}", exact[b]),
                      fmt::format("{:.3f}", errors[b]), fmt::format("{:.4f}", means[b])}});
  }
  return lines;
}

}  // namespace

std::vector<CellKey> cells_of(const Grid& grid) {
  std::vector<CellKey> cells;
  for (const Setting& setting : grid.settings) {
    for (const std::string& protocol : grid.protocols) {
      for (const index_t length : grid.lengths) cells.push_back({setting.arg, protocol, length});
    }
  }
  return cells;
}

std::string results_table(const std::vector<CellKey>& cells, const KnownCells& known) {
  std::vector<std::int64_t> lengths;
  std::vector<std::string> protocols;
  for (const CellKey& key : cells) {
    add_new(lengths, key.length);
    add_new(protocols, key.protocol);
  }
  const bool several = protocols.size() > 1;
  std::vector<std::vector<std::string>> table = {{"rope"}};
  if (several) table[0].push_back("protocol");
  for (const std::int64_t length : lengths) table[0].push_back(std::to_string(length));
  for (std::size_t i = 0; i < cells.size(); i += lengths.size()) {
    std::vector<std::string> line = {cells[i].rope_arg};
    if (several) line.push_back(cells[i].protocol);
    for (std::size_t l = i; l < i + lengths.size(); ++l) {
      const CellRow* cell = find_cell(known, cells[l]);
      line.push_back(cell == nullptr ? "-" : ppl_text(*cell));
    }
    table.push_back(std::move(line));
  }
  add_floor_line(cells, known, several ? 2 : 1, table);
  return aligned_table(table);
}

std::string results_csv(const std::vector<CellKey>& cells, const KnownCells& known) {
  std::string out;
  for (const CellKey& key : cells) {
    const CellRow* cell = find_cell(known, key);
    if (cell == nullptr) continue;
    if (out.empty()) out = csv_header(cell->results);
    out += csv_line(cell->results);
  }
  return out;
}

std::string results_jsonl(const std::vector<CellKey>& cells, const KnownCells& known) {
  std::string out;
  for (const CellKey& key : cells) {
    if (const CellRow* cell = find_cell(known, key)) out += to_json(cell->whole()) + "\n";
  }
  return out;
}

std::string results_text(const std::vector<CellKey>& cells, const KnownCells& known,
                         Format format) {
  return format == Format::csv     ? results_csv(cells, known)
         : format == Format::jsonl ? results_jsonl(cells, known)
                                   : results_table(cells, known);
}

void add_bins_options(Options& options, BinsOptions& out) {
  options.flag("--by-position", out.by_position,
               "Losses by context length [1, 2), [2, 4), ... instead");
  options.flag("--by-distance", out.by_distance,
               "With --synthetic: what was looked up, by the distance from where it was stated");
}

Bins bins_of(const BinsOptions& options) {
  if (options.by_position && options.by_distance) {
    fail_usage("--by-distance", "--by-position too", "one of the two");
  }
  return options.by_position ? Bins::position : options.by_distance ? Bins::distance : Bins::none;
}

std::string bins_text(Bins bins, const std::vector<CellKey>& cells, const KnownCells& known,
                      Format format) {
  const bool positions = bins == Bins::position;
  std::string out;
  std::vector<std::vector<std::string>> table(1);
  table[0] = positions ? std::vector<std::string>{"rope",   "protocol", "length", "context",
                                                  "tokens", "nll",      "floor"}
                       : std::vector<std::string>{"rope",  "length", "distance", "answers",
                                                  "exact", "se",     "nll"};
  for (const CellKey& key : cells) {
    const CellRow* cell = find_cell(known, key);
    if (cell == nullptr) continue;
    for (const BinLine& line :
         positions ? position_lines(key, *cell) : distance_lines(key, *cell)) {
      if (format == Format::jsonl) out += to_json(line.row) + "\n";
      if (format == Format::csv) {
        out += (out.empty() ? csv_header(line.row) : "") + csv_line(line.row);
      }
      table.push_back(line.cells);
    }
  }
  return format == Format::table ? aligned_table(table) : out;
}

}  // namespace cli
