// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The folder of a sweep: manifest.json says of what, results.jsonl holds the rows.

#include <optional>
#include <string>

#include "ropewalk/io/record_log.hpp"

#include "grid.hpp"

namespace cli {

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

 private:
  void compare_manifest(const Row& configuration) const;
  void read_rows(const std::string& config_hash);

  std::string path_;
  std::optional<RecordLog> log_;
  KnownCells known_;
};

}  // namespace cli
