// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Rows of cells as tables, csv and JSON lines, in the order of the grid whenever they were made.

#include <string>
#include <vector>

#include "grid.hpp"

namespace cli {

/// The cells of a grid, in the order of its rows.
std::vector<CellKey> cells_of(const Grid& grid);

/// Perplexities, lengths side by side; "-" for cells that are not there.
std::string results_table(const std::vector<CellKey>& cells, const KnownCells& known);
/// The cells that are there, with a header.
std::string results_csv(const std::vector<CellKey>& cells, const KnownCells& known);
std::string results_jsonl(const std::vector<CellKey>& cells, const KnownCells& known);
std::string results_text(const std::vector<CellKey>& cells, const KnownCells& known, Format format);

/// Losses by the number of tokens seen before, a line for each cell and bin [1, 2), [2, 4), ...
std::string position_text(const std::vector<CellKey>& cells, const KnownCells& known,
                          Format format);

}  // namespace cli
