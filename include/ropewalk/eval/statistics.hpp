// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Means and standard errors of per-token losses.

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/tensor_view.hpp"

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

/// Losses of the first `length` positions of several windows.
struct WindowLosses {
  index_t windows = 0;
  index_t length = 0;
  std::vector<double> nll = {};         ///< (windows, length), nats
  std::vector<std::uint8_t> top1 = {};  ///< (windows, length), 1 where the target was the argmax
};

/// What a table row says of a setting.
struct LossSummary {
  index_t length = 0;
  index_t windows = 0;
  std::int64_t tokens = 0;  ///< scored
  double nll_sum = 0;       ///< of all scored tokens, nats
  double nll = 0;           ///< mean, nats per token
  double ppl = 0;           ///< exp(nll)
  double top1 = 0;          ///< share of targets that were the argmax
  /// Standard error of nll: deviation of the window means / sqrt(windows). NaN for one window.
  double se = std::numeric_limits<double>::quiet_NaN();
};

/// Summary over the first `length` positions of every window, each token with equal weight.
/// \throws Error(usage) unless 1 <= length <= losses.length and there is a window
inline LossSummary summarize(const WindowLosses& losses, index_t length) {
  require(losses.windows >= 1 && length >= 1 && length <= losses.length,
          "at least one window and 1 <= length <= losses.length");
  LossSummary s{.length = length, .windows = losses.windows, .tokens = losses.windows * length};
  CompensatedSum total, hits;
  std::vector<double> mean(static_cast<std::size_t>(losses.windows));
  for (index_t w = 0; w < losses.windows; ++w) {
    CompensatedSum window;
    for (index_t t = 0; t < length; ++t) {
      const auto i = static_cast<std::size_t>(w * losses.length + t);
      window.add(losses.nll[i]);
      hits.add(losses.top1[i]);
    }
    total.add(window.value());
    mean[static_cast<std::size_t>(w)] = window.value() / static_cast<double>(length);
  }
  s.nll_sum = total.value();
  s.nll = s.nll_sum / static_cast<double>(s.tokens);
  s.ppl = elementary::exp(s.nll);
  s.top1 = hits.value() / static_cast<double>(s.tokens);
  if (losses.windows > 1) {
    double squares = 0;
    for (const double m : mean) squares = std::fma(m - s.nll, m - s.nll, squares);
    const auto n = static_cast<double>(losses.windows);
    s.se = std::sqrt(squares / (n - 1) / n);
  }
  return s;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
