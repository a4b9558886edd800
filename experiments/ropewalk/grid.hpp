// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The grid of settings x lengths that sweep and ppl compute, and its result rows.

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "loaded_model.hpp"
#include "output.hpp"
#include "scoring_data.hpp"

namespace cli {

/// Version of the rows' fields.
inline constexpr std::int64_t row_schema = 1;
/// Mean over windows x the first L positions, from one causal pass.
inline constexpr const char* prefix_protocol = "prefix";

/// What is computed: a cell for every setting and length.
struct Grid {
  std::vector<Setting> settings = {};
  std::vector<index_t> lengths = {};        ///< in the order of the rows
  std::vector<std::string> nll_files = {};  ///< one a setting, or none
  std::string protocol = prefix_protocol;

  index_t longest() const;
  std::size_t cells() const { return settings.size() * lengths.size(); }
};

/// A cell's row: the keys that tables and csv carry, and where the numbers come from.
struct CellRow {
  Row results = {};
  Row origin = {};

  /// Both, as JSON lines carry them.
  Row whole() const;
  bool finite() const;
};

/// The value of a key in `row`; null when there is none.
const Value& value_of(const Row& row, std::string_view key);
/// A value as a number; NaN when it is none.
double number_of(const Value& value);

/// What determines the values of all cells: the configuration that resuming compares.
Row grid_configuration(const Grid& grid, const ModelOptions& options, const LoadedModel& model,
                       const ScoringData& data);
/// 16 hexadecimal digits.
std::string configuration_hash(const Row& configuration);

/// The origin fields of every row.
Row row_origin(const ModelOptions& options, const LoadedModel& model, const ScoringData& data,
               const std::string& config_hash);

/// Cells known from an earlier run, by (rope_arg, length).
using KnownCells = std::map<std::pair<std::string, std::int64_t>, CellRow>;

/// Computes the cells that are not known, writes the files of losses, and gives every cell to
/// `finished(setting, cell, is_new)`: settings and lengths in order.
/// \throws Stopped, and Error(state) when a cell computed again differs from the known one.
void run_grid(const Grid& grid, LoadedModel& model, const ScoringData& data, const Row& origin,
              const KnownCells& known, bool quiet, const std::string& command,
              const std::function<void(std::size_t, const CellRow&, bool)>& finished);

/// The options of sweep and ppl that make a grid.
struct GridOptions {
  ModelOptions model = {};
  DataOptions data = {};
  std::vector<std::string> rope = {"default"};
  std::vector<std::int64_t> lengths = {};
  std::string protocol = prefix_protocol;
  std::string nll_out = {};
  std::string format = "table";
};

/// `what_rope`, `what_nll`: help of the options that mean different things to sweep and ppl.
void add_grid_options(Options& options, GridOptions& out, const std::string& what_rope,
                      const std::string& what_nll);

/// Checks the options that need no file. \throws Error(usage)
void check_grid_options(const GridOptions& options);
/// \throws Error(usage), also when a file of losses would replace an input.
Grid make_grid(const GridOptions& options, const LoadedModel& model);

}  // namespace cli
