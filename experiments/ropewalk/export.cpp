// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk export`: the rows of a results folder, computing and changing nothing.

#include <fmt/format.h>

#include "commands.hpp"
#include "results_folder.hpp"
#include "results_text.hpp"

namespace cli {

namespace {

constexpr int exit_partial = 1;  // some cells are not there, or not finite

constexpr const char* examples =
    "  ropewalk export ropewalk-results/sweep-0123456789ab > table.csv\n"
    "  ropewalk export ropewalk-results/sweep-0123456789ab --format table\n"
    "  ropewalk export ropewalk-results/sweep-0123456789ab --by-position --format csv\n";

}  // namespace

int run_export(Arguments arguments) {
  std::string folder;
  std::string format = "csv";
  BinsOptions bins;
  bool quiet = false;
  Options options("export",
                  "Rows of a results folder in the order of its grid, whatever the order in which "
                  "they were computed. A sweep may be writing to the folder.",
                  examples);
  options.positional("DIR", folder, "Results folder of a sweep");
  options.choice("--format", {"table", "csv", "jsonl"}, format, "Form of the rows on stdout");
  add_bins_options(options, bins);
  options.flag("--quiet", quiet, "No remarks on stderr");
  if (!options.parse(arguments)) return 0;
  if (folder.empty()) fail_usage("DIR", "nothing", "the results folder of a sweep");

  const StoredResults results = read_results(folder);
  const Format form = parse_format(format);
  print(bins_of(bins) == Bins::none ? results_text(results.cells, results.known, form)
                                    : bins_text(bins_of(bins), results.cells, results.known, form));
  flush_output();
  std::size_t there = 0, nonfinite = 0;
  for (const CellKey& key : results.cells) {
    const auto cell = results.known.find(key);
    if (cell == results.known.end()) continue;
    ++there;
    if (!cell->second.finite()) ++nonfinite;
  }
  if (results.torn_bytes > 0) {
    remark(quiet, fmt::format("note: the last record is incomplete ({} bytes): a sweep is writing "
                              "it, or was killed",
                              results.torn_bytes));
  }
  if (there < results.cells.size()) {
    remark(quiet, fmt::format("{} of {} cells are there; the command of the sweep goes on", there,
                              results.cells.size()));
  }
  if (nonfinite > 0) remark(quiet, fmt::format("{} cells are not finite", nonfinite));
  return there == results.cells.size() && nonfinite == 0 ? 0 : exit_partial;
}

}  // namespace cli
