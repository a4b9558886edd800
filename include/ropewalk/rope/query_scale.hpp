// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Log-n scaling of logits: a factor of each query that grows with its position.

#include <cstdint>
#include <span>
#include <vector>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// max(1, ln(m + 1) / ln L) for the query at position m, which sees m + 1 keys of its document;
/// without the max if not clipped, so that the first query, which sees one key, gets 0.
/// It depends on the position alone: a sequence decoded token by token has the scales of one pass.
inline double logn_scale(LogN logn, std::int64_t position) {
  const double n = static_cast<double>(position) + 1;
  const auto length = static_cast<double>(logn.length);
  if (logn.clip && n <= length) return 1;
  return elementary::log(n) / elementary::log(length);
}

/// The factor of each token's query; empty where logn.length is 0. positions: (tokens), at least 0.
/// \throws Error(usage) for a negative position or a length of 1.
inline std::vector<float> make_query_scale(LogN logn, std::span<const std::int64_t> positions) {
  std::vector<float> scale;
  if (logn.length == 0) return scale;
  require(logn.length >= 2, "a log-n length of at least 2");
  scale.reserve(positions.size());
  for (const std::int64_t p : positions) {
    require(p >= 0, "positions of at least 0 for log-n scaling");
    scale.push_back(static_cast<float>(logn_scale(logn, p)));
  }
  return scale;
}

/// As above, of a plan.
inline std::vector<float> make_query_scale(const FrequencyPlan& plan,
                                           std::span<const std::int64_t> positions) {
  return make_query_scale(plan.logn, positions);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
