// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The grid of settings x protocols x lengths that sweep and ppl compute, and its result rows.

#include <compare>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ropewalk/eval/passes.hpp"

#include "loaded_model.hpp"
#include "output.hpp"
#include "scoring_data.hpp"

namespace cli {

/// Version of the rows' fields.
inline constexpr std::int64_t row_schema = 2;

/// What is computed: a cell for every setting, protocol and length.
struct Grid {
  std::vector<Setting> settings = {};
  std::vector<std::string> protocols = {};  ///< names
  index_t stride = 0;                       ///< of the protocols that have one; 0: theirs
  std::vector<index_t> lengths = {};        ///< in the order of the rows
  std::vector<std::string> nll_files = {};  ///< one a setting, or none

  index_t longest() const;
  std::size_t cells() const { return settings.size() * protocols.size() * lengths.size(); }
  DataNeeds needs() const;
};

/// One protocol at one length: what a cell of every setting computes.
struct Request {
  std::string protocol = {};
  index_t length = 0;
  std::size_t group = 0;  ///< in Evaluation::groups
  index_t index = 0;      ///< in its group's plans
};

/// Requests over the same ids, which can share passes.
struct RequestGroup {
  EvalText text = {};
  std::vector<WindowPlan> plans = {};
};

/// The grid's requests over the data, which must outlive it.
struct Evaluation {
  std::vector<RequestGroup> groups = {};
  std::vector<Request> requests = {};  ///< in the order of the rows

  const WindowPlan& plan(const Request& r) const {
    return groups[r.group].plans[static_cast<std::size_t>(r.index)];
  }
};

/// \throws Error(usage) for protocols that do not fit their lengths or the text
Evaluation make_evaluation(const Grid& grid, const ScoringData& data);

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
Row grid_configuration(const Grid& grid, const Evaluation& evaluation, const ModelOptions& options,
                       const LoadedModel& model, const ScoringData& data);
/// 16 hexadecimal digits.
std::string configuration_hash(const Row& configuration);

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

/// The passes of one setting: for each group of requests, what is run and which of it is needed.
struct SettingPasses {
  std::vector<PassPlan> plans = {};             ///< one a group
  std::vector<std::vector<bool>> needed = {};   ///< [group][pass]
  std::vector<std::vector<index_t>> last = {};  ///< [group][request]: its last pass
};

/// Plans the passes of every setting. Needed are those of cells that are not known, of files of
/// losses, and of the first setting where a difference to it is to be computed.
std::vector<SettingPasses> plan_settings(const Grid& grid, const Evaluation& evaluation,
                                         const KnownCells& known);

class ResultsFolder;

/// What run_grid works on and reports to.
struct GridRun {
  const Grid& grid;
  const Evaluation& evaluation;
  LoadedModel& model;
  const Row& origin;
  ResultsFolder* folder = nullptr;  ///< keeps rows and losses; null: nothing is kept
  std::string command = {};
  bool quiet = false;
};

/// Computes the cells that the folder does not know, appends each to it as soon as its last pass is
/// done, writes the files of losses, and gives every cell to `finished(setting, cell)`: settings,
/// protocols and lengths in order.
/// \throws Stopped after making durable what is done; Error(state) when a cell computed again
/// differs from the known one
void run_grid(const GridRun& run,
              const std::function<void(const Setting&, const CellRow&)>& finished);

/// Runs what another executor runs, stoppable between the layers of a pass.
class StoppableExecutor {
 public:
  explicit StoppableExecutor(Executor inner) : inner_(inner) {}
  StoppableExecutor(const StoppableExecutor&) = delete;
  StoppableExecutor& operator=(const StoppableExecutor&) = delete;
  /// \throws Stopped from run(), between the parallel regions of a pass.
  Executor executor();

 private:
  Executor inner_;
};

/// The options of sweep and ppl that make a grid.
struct GridOptions {
  ModelOptions model = {};
  DataOptions data = {};
  std::vector<std::string> rope = {"default"};
  std::vector<std::int64_t> lengths = {};
  std::vector<std::string> protocol = {"prefix"};
  std::optional<std::int64_t> stride = {};
  std::string nll_out = {};
  std::string format = "table";
  bool by_position = false;
  bool dry_run = false;
};

/// `what_rope`, `what_nll`: help of the options that mean different things to sweep and ppl.
void add_grid_options(Options& options, GridOptions& out, const std::string& what_rope,
                      const std::string& what_nll);

/// Checks the options that need no file. \throws Error(usage)
void check_grid_options(const GridOptions& options);
/// \throws Error(usage), also when a file of losses would replace an input.
Grid make_grid(const GridOptions& options, const LoadedModel& model);

}  // namespace cli
