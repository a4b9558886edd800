// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Rows of cells as tables, csv and JSON lines, in the order of the grid whenever they were made.

#include <string>
#include <vector>

#include "args.hpp"
#include "grid.hpp"

namespace cli {

/// Options that ask for bins.
struct BinsOptions {
  bool by_position = false, by_distance = false;
};

/// The cells of a grid, in the order of its rows.
std::vector<CellKey> cells_of(const Grid& grid);

/// Perplexities, lengths side by side; "-" for cells that are not there.
std::string results_table(const std::vector<CellKey>& cells, const KnownCells& known);
/// The cells that are there, with a header.
std::string results_csv(const std::vector<CellKey>& cells, const KnownCells& known);
std::string results_jsonl(const std::vector<CellKey>& cells, const KnownCells& known);
std::string results_text(const std::vector<CellKey>& cells, const KnownCells& known, Format format);

/// A row for each bin instead of each cell.
enum class Bins { none, position, distance };
void add_bins_options(Options& options, BinsOptions& out);
/// \throws Error(usage) for both
Bins bins_of(const BinsOptions& options);
/// Losses by the number of tokens seen before, or answers by their distance from the fact: a line
/// for each cell and bin [1, 2), [2, 4), ...
std::string bins_text(Bins bins, const std::vector<CellKey>& cells, const KnownCells& known,
                      Format format);

}  // namespace cli
