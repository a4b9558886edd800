// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A cell of the results: one setting, protocol and length, and its row.

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>

#include "ropewalk/eval/passes.hpp"

#include "loaded_model.hpp"
#include "output.hpp"
#include "scoring_data.hpp"

namespace cli {

/// Version of the rows' fields.
inline constexpr std::int64_t row_schema = 4;

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

/// The origin fields of every row.
Row row_origin(const ModelOptions& options, const LoadedModel& model, const ScoringData& data,
               const std::string& config_hash);

/// Names a cell within a configuration.
struct CellKey {
  std::string rope_arg = {};
  std::string protocol = {};
  std::int64_t length = 0;
  friend auto operator<=>(const CellKey&, const CellKey&) = default;
};

/// Cells known from an earlier run.
using KnownCells = std::map<CellKey, CellRow>;

/// What a cell is made from.
struct CellSource {
  const Setting& setting;
  const FrequencyPlan& frequencies;  ///< of the cell's length
  const std::string& protocol;       ///< name
  index_t length = 0;
  const WindowPlan& plan;
  const EvalText& text;
  const ScoredLosses& losses;
  const ScoredLosses* first = nullptr;  ///< of the first setting; null for that setting itself
  const KnownText& known;               ///< of what protocol prefix scores
};

CellRow make_cell(const CellSource& source, const Row& origin);

}  // namespace cli
