// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Timing beside a limit that does not stand still: slices of work, each between two probes.

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "measure/machine_limits.hpp"

namespace bench {

using namespace ropewalk;
using namespace measure;

/// What a slice lasts where the work can be cut so finely. Short against the seconds after which a
/// machine changes its speed, long against a probe's half millisecond.
inline constexpr double slice_seconds = 2.5e-3;

/// Work between two probes of the limit.
struct Slice {
  double seconds = 0;
  double before = 0, after = 0;  ///< what the probes found

  double limit() const { return (before + after) / 2; }
  /// Whether the machine was the same before and after.
  bool steady() const { return std::fabs(before - after) < 0.05 * std::max(before, after); }
};

/// A clock that stands still while the limit is probed.
class SliceClock {
 public:
  SliceClock(std::function<double()> probe, TimeBase base)
      : probe_(std::move(probe)), base_(base) {}
  void start() {
    if (limit_ == 0) limit_ = probe_();
    slices_.clear();
    begin_ = seconds_now(base_);
  }
  /// Where the work can be interrupted: ends the slice if it has lasted long enough.
  void cut_if_due() {
    if (seconds_now(base_) - begin_ >= slice_seconds) cut();
  }
  /// All slices since start().
  const std::vector<Slice>& stop() {
    cut();
    return slices_;
  }

 private:
  void cut() {
    const double seconds = seconds_now(base_) - begin_;
    const double before = std::exchange(limit_, probe_());
    slices_.push_back({.seconds = seconds, .before = before, .after = limit_});
    begin_ = seconds_now(base_);
  }

  std::function<double()> probe_;
  TimeBase base_;
  double limit_ = 0;  ///< what the last probe found
  double begin_ = 0;
  std::vector<Slice> slices_;
};

/// Runs the workers of a region one after the other on the calling thread; between them a slice may
/// end. So a kernel that takes a second can be measured in slices of milliseconds.
class SlicedThread {
 public:
  SlicedThread(index_t workers, SliceClock& clock) : workers_(workers), clock_(&clock) {}
  Executor executor() {
    return {this, workers_,
            [](void* self, WorkerTask task) { static_cast<SlicedThread*>(self)->run(task); }};
  }

 private:
  void run(WorkerTask task) {
    for (index_t w = 0; w < workers_; ++w) {
      task(w, workers_);
      if (w + 1 < workers_) clock_->cut_if_due();
    }
  }
  index_t workers_;
  SliceClock* clock_;
};

/// What runs have done, and what the machine could have done in the same time: of each slice the
/// mean of its two probes times its seconds.
class Samples {
 public:
  struct Summary {
    double rate = 0, limit = 0, share = 0;  ///< medians; rates in 10^9 a second
    double steady = 0;                      ///< of the samples, those that were used
  };
  /// A sample: slices in which `amount` (flops, bytes) was done.
  void add(const std::vector<Slice>& slices, double amount) {
    double seconds = 0, steady = 0, possible = 0;
    for (const Slice& s : slices) {
      seconds += s.seconds;
      if (s.steady()) steady += s.seconds;
      possible += s.seconds * s.limit();
    }
    const Sample sample{amount * 1e-9 / seconds, possible / seconds, amount * 1e-9 / possible};
    all_.push_back(sample);
    if (steady > 0.9 * seconds) used_.push_back(sample);
  }
  /// Of the samples in which the machine was steady; of all where no sample was.
  Summary summary() const {
    const std::vector<Sample>& s = used_.empty() ? all_ : used_;
    if (s.empty()) return {};
    return {.rate = median_of(s, &Sample::rate),
            .limit = median_of(s, &Sample::limit),
            .share = median_of(s, &Sample::share),
            .steady = static_cast<double>(used_.size()) / static_cast<double>(all_.size())};
  }

 private:
  struct Sample {
    double rate, limit, share;
  };
  static double median_of(const std::vector<Sample>& samples, double Sample::*field) {
    std::vector<double> x;
    for (const Sample& s : samples) x.push_back(s.*field);
    std::sort(x.begin(), x.end());
    const std::size_t half = x.size() / 2;
    return x.size() % 2 == 1 ? x[half] : (x[half - 1] + x[half]) / 2;
  }
  std::vector<Sample> all_, used_;
};

}  // namespace bench
