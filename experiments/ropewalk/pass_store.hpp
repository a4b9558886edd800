// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Losses of a setting that is still running, kept in the results folder so that a killed run goes
/// on in the middle of it.

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/eval/passes.hpp"

namespace cli {

using namespace ropewalk;

/// The passes of one setting that are done. What an earlier run kept is there from the start; what
/// is added becomes durable every quarter of a second, so that at most that much work and the pass
/// in flight are lost, whatever kills the process. A file that is incomplete, damaged or of another
/// setting gives the whole passes before the damage: computing the rest again gives the same bits.
class PassStore {
 public:
  /// `key`: of everything that determines the losses. `passes`: all of the setting. Without a path
  /// nothing is kept.
  /// \throws Error(io) when a file that is there cannot be read
  PassStore(std::string path, std::uint64_t key, const std::vector<Pass>& passes,
            std::chrono::milliseconds pause = std::chrono::milliseconds(250));
  PassStore(const PassStore&) = delete;
  PassStore& operator=(const PassStore&) = delete;

  bool has(std::size_t pass) const { return done_[pass]; }
  /// Passes that the file brought.
  std::size_t restored() const { return restored_; }
  /// Losses of all passes; of those that are not done, zeros.
  const PassLosses& losses() const { return losses_; }

  /// nll, top1: (tokens of the pass that are scored)
  /// \throws Error(resource | io) when it was time to write and that failed
  void add(std::size_t pass, std::span<const double> nll, std::span<const std::uint8_t> top1);
  /// Makes all passes durable now.
  void flush();
  /// Removes the file: the rows made from it are durable elsewhere.
  void remove();

 private:
  using Clock = std::chrono::steady_clock;
  void read();
  void append_record(std::size_t pass, std::string& out) const;
  std::size_t size_of(std::size_t pass) const {
    return losses_.offset[pass + 1] - losses_.offset[pass];
  }

  std::string path_;
  std::uint64_t key_;
  std::chrono::milliseconds pause_;
  PassLosses losses_;
  std::vector<bool> done_;
  std::vector<std::size_t> pending_;  ///< done, but not in the file
  std::size_t restored_ = 0;
  std::uint64_t file_size_ = 0;  ///< of the whole records in the file
  Clock::time_point written_ = Clock::now();
};

}  // namespace cli
