// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Progress of a long run on stderr.

#include <chrono>
#include <cstdint>
#include <string>

namespace cli {

/// Hours, minutes and seconds: 0:01:05. Negative and absurd durations print as "?".
std::string duration_text(double seconds);

/// Cells done, tokens a second, the running perplexity and the time left: one live line on a
/// terminal, else a line every 20 seconds. The time left is weighed by work (floating-point
/// operations), because a token of a long sequence costs more than one of a short sequence.
class Progress {
 public:
  /// `work`: of the whole run, in any unit.
  Progress(bool quiet, std::string what, std::int64_t cells, double work);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `note`: what is running and how it looks, shown in the line.
  void add(std::int64_t tokens, double work, const std::string& note = {});
  /// Work that turned out to be done already.
  void skip(double work);
  void add_cells(std::int64_t cells);
  /// Removes the live line, so that other output can follow.
  void clear();

  double seconds() const;
  /// Seconds left if the rest goes as fast as what was done; negative while nothing was done.
  double seconds_left() const;

 private:
  using Clock = std::chrono::steady_clock;
  void show(const std::string& note);

  bool quiet_;
  bool live_;
  std::string what_;
  std::int64_t cells_;
  double work_;
  std::int64_t cells_done_ = 0, tokens_done_ = 0;
  double work_done_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point shown_ = start_;
  bool line_is_open_ = false;
};

}  // namespace cli
