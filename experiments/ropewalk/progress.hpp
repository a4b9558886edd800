// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Progress of a long run on stderr.

#include <chrono>
#include <cstdint>
#include <string>

namespace cli {

/// Cells done, tokens a second and the time left: one live line on a terminal, else a line every
/// 20 seconds.
class Progress {
 public:
  /// `tokens`: of the whole run, repeated passes counted again.
  Progress(bool quiet, std::string what, std::int64_t cells, std::int64_t tokens);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void add_tokens(std::int64_t tokens);
  void add_cells(std::int64_t cells);
  /// Removes the live line, so that other output can follow.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  void show();

  bool quiet_;
  bool live_;
  std::string what_;
  std::int64_t cells_, tokens_;
  std::int64_t cells_done_ = 0, tokens_done_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point shown_ = start_;
  bool line_is_open_ = false;
};

}  // namespace cli
