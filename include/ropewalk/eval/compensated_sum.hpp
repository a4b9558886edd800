// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Sums of losses that do not depend on what follows.

#include <cmath>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Neumaier's compensated sum: terms in ascending order of position, so that a mean over a prefix
/// does not depend on how long the rest is.
class CompensatedSum {
 public:
  void add(double x) {
    const double t = sum_ + x;
    rest_ += std::fabs(sum_) >= std::fabs(x) ? (sum_ - t) + x : (x - t) + sum_;
    sum_ = t;
  }
  double value() const { return sum_ + rest_; }

 private:
  double sum_ = 0;
  double rest_ = 0;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
