// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Where in a stream of tokens an answer stands, and where what it repeats was stated.

#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Tokens [first, first + count) can be copied from tokens [fact, fact + count) or from what is
/// written there in other tokens.
struct AnswerSpan {
  index_t first = 0;
  index_t count = 0;
  index_t fact = 0;  ///< before `first`

  /// How far back the answer was stated, in tokens.
  constexpr index_t distance() const { return first - fact; }
  friend constexpr bool operator==(AnswerSpan, AnswerSpan) = default;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
