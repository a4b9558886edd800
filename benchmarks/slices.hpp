// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Timing beside a limit that does not stand still: slices of work, each between two probes.

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "measure/machine_limits.hpp"

namespace bench {

using namespace ropewalk;
using namespace measure;

/// What a slice lasts where the work can be cut so finely. Short against the seconds after which a
/// machine changes its speed, long against a probe's half millisecond.
inline constexpr double slice_seconds = 1e-3;

/// Work between two probes of the limit.
struct Slice {
  double seconds = 0;
  double before = 0, after = 0;  ///< what the probes found

  double limit() const { return (before + after) / 2; }
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
            [](void* self, WorkerTask task) { static_cast<SlicedThread*>(self)->run(task); },
            false};
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
    double quiet = 0;                       ///< of the samples' time, that in quiet slices
  };
  /// A sample: slices in which `amount` (flops, bytes) was done.
  void add(const std::vector<Slice>& slices, double amount) {
    double seconds = 0, possible = 0;
    for (const Slice& s : slices) {
      seconds += s.seconds;
      possible += s.seconds * s.limit();
      slices_.push_back(s);
    }
    samples_.push_back({.rate = amount * 1e-9 / seconds,
                        .limit = possible / seconds,
                        .share = amount * 1e-9 / possible,
                        .slices = slices.size()});
  }
  /// Of the samples in which the machine was quiet, nine tenths of the time; of the quietest
  /// quarter where that is more.
  Summary summary() {
    if (samples_.empty()) return {};
    const double least = 0.95 * best_limit();
    double all = 0, all_quiet = 0;
    std::size_t at = 0;
    for (Sample& sample : samples_) {
      double seconds = 0, quiet = 0;
      for (std::size_t i = 0; i < sample.slices; ++i, ++at) {
        const Slice& s = slices_[at];
        seconds += s.seconds;
        if (std::min(s.before, s.after) >= least) quiet += s.seconds;
      }
      sample.quiet = quiet / seconds;
      all += seconds;
      all_quiet += quiet;
    }
    std::ranges::stable_sort(samples_, std::greater<>(), &Sample::quiet);
    const auto quiet = static_cast<std::size_t>(
        std::ranges::count_if(samples_, [](const Sample& s) { return s.quiet > 0.9; }));
    samples_.resize(std::max(quiet, (samples_.size() + 3) / 4));
    return {.rate = median_of(&Sample::rate),
            .limit = median_of(&Sample::limit),
            .share = median_of(&Sample::share),
            .quiet = all_quiet / all};
  }

 private:
  struct Sample {
    double rate, limit, share;
    std::size_t slices;
    double quiet = 0;
  };
  /// What the best twentieth of the probes found.
  double best_limit() const {
    std::vector<double> x;
    for (const Slice& s : slices_) x.push_back(s.after);
    std::ranges::sort(x);
    return x[(x.size() - 1) * 19 / 20];
  }
  double median_of(double Sample::*field) const {
    std::vector<double> x;
    for (const Sample& s : samples_) x.push_back(s.*field);
    std::ranges::sort(x);
    const std::size_t half = x.size() / 2;
    return x.size() % 2 == 1 ? x[half] : (x[half - 1] + x[half]) / 2;
  }
  std::vector<Sample> samples_;
  std::vector<Slice> slices_;
};

}  // namespace bench
