// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The folder of a sweep: manifest.json says of what, results.jsonl holds the rows.

#include <optional>
#include <string>
#include <vector>

#include "ropewalk/io/record_log.hpp"

#include "grid.hpp"

namespace cli {

/// What a folder holds, read without touching it.
struct StoredResults {
  std::string config_hash = {};
  std::vector<CellKey> cells = {};  ///< of the whole grid, in the order of the rows
  KnownCells known = {};            ///< those that are there
  std::size_t torn_bytes = 0;       ///< of an incomplete last record
};

/// Reads a folder that another process may be writing to.
/// \throws Error(io) when there is none, Error(state) when it is damaged
StoredResults read_results(const std::string& path);

/// Holds the folder for this process. Rows are durable once append() returns.
class ResultsFolder {
 public:
  /// Creates the folder, or opens one of the same configuration. `environment`: fields of the
  /// manifest that are not compared.
  /// \throws Error(resume) when it is of another configuration, naming every changed field;
  /// Error(lock) when another process writes to it; Error(state) when it is damaged; Error(io).
  ResultsFolder(std::string path, const Row& configuration, const Row& environment);

  const KnownCells& known() const { return known_; }
  const std::optional<TornTail>& torn_tail() const { return log_->torn_tail(); }
  const std::string& path() const { return path_; }
  void append(const CellRow& cell) { log_->append(to_json(cell.whole())); }
  /// Removes files of losses that no row needs any longer: what a process left that was killed
  /// right after its last row.
  void remove_losses() const;

 private:
  std::string path_;
  std::optional<RecordLog> log_;
  KnownCells known_;
};

}  // namespace cli
