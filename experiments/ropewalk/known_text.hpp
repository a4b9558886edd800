// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What is known of a generated text besides its ids, and figures that need it.

#include <vector>

#include "ropewalk/core/answer_span.hpp"
#include "ropewalk/eval/passes.hpp"

#include "output.hpp"

namespace cli {

using namespace ropewalk;

/// Of windows of equal length, one after the other; empty where nothing is known.
struct KnownText {
  std::vector<double> floor = {};                     ///< nats per id, of the ideal predictor
  std::vector<std::vector<AnswerSpan>> answers = {};  ///< of each window, what can be looked up
  index_t window_tokens = 0;                          ///< ids of a window

  bool empty() const { return floor.empty(); }
};

/// Figures of the ids 1 .. length of each window, whose losses these are (protocol prefix).
struct KnownFigures {
  Row results = {};  ///< floor (nats), exact: the share of answers that were top-1 in whole
  Row bins = {};     ///< by context length and by distance from the fact, lists
};
KnownFigures known_figures(const KnownText& known, const ScoredLosses& losses, index_t length);

}  // namespace cli
