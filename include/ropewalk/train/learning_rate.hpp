// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Learning-rate schedules: a linear warm-up, then constant, cosine, or warm-up-stable-decay.

#include <cmath>
#include <cstdint>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/error.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

enum class Decay {
  constant,  ///< stays at the peak
  cosine,    ///< half a cosine from the peak to the end (arXiv:1608.03983)
  stable,    ///< the peak, then a straight line to the end (WSD, arXiv:2404.06395)
};

struct LearningRateSchedule {
  double peak = 1e-3;
  double end = 1e-4;     ///< after the last step; unused by constant
  double warmup = 0.05;  ///< share of the steps; at least one step unless 0
  Decay decay = Decay::cosine;
  double decay_share = 0.2;  ///< of the steps, at the end: where `stable` decays
  std::int64_t steps = 0;    ///< of the whole schedule

  /// \throws Error(usage)
  void check() const {
    require(peak > 0 && std::isfinite(peak), "peak > 0");
    require(end >= 0 && end <= peak, "0 <= end <= peak");
    require(warmup >= 0 && warmup <= 1, "0 <= warmup <= 1");
    require(decay_share >= 0 && decay_share <= 1, "0 <= decay_share <= 1");
    require(steps >= 0, "steps >= 0");
  }
  std::int64_t warmup_steps() const {
    return static_cast<std::int64_t>(std::ceil(warmup * static_cast<double>(steps)));
  }
  /// Of step 0, 1, ..: the last warm-up step has the peak, the last step comes just before the end.
  double at(std::int64_t step) const {
    const std::int64_t rising = warmup_steps();
    if (step < rising) {
      return peak * static_cast<double>(step + 1) / static_cast<double>(rising);
    }
    if (decay == Decay::constant || step >= steps) return decay == Decay::constant ? peak : end;
    const auto whole = static_cast<double>(steps);
    const double start = decay == Decay::cosine
                             ? static_cast<double>(rising)
                             : std::fmax(whole - decay_share * whole, static_cast<double>(rising));
    const double now = static_cast<double>(step);
    if (now < start) return peak;
    const double progress = (now - start) / (whole - start);  // in [0, 1)
    if (decay == Decay::stable) return std::fma(end - peak, progress, peak);
    // cos(pi x) of half a turn: 2^63 of 2^64 units of a turn.
    const auto turns = static_cast<std::uint64_t>(progress * 0x1p63);
    const double cosine = elementary::sincos_turns(static_cast<std::int64_t>(turns)).cos;
    return std::fma(peak - end, 0.5 * (1 + cosine), end);
  }
};

}  // namespace ropewalk::inline ROPEWALK_ABI
