// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// TrainingSequence: a window of tokens and what is learnt from it.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "ropewalk/core/answer_span.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/model/token_batch.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A window of tokens to be learnt from: one document, or several packed side by side.
struct TrainingSequence {
  std::vector<TokenId> tokens = {};           ///< (n)
  std::vector<TokenId> targets = {};          ///< (n) next ids, or not_scored
  std::vector<float> loss_weights = {};       ///< (n), or none: all 1
  std::vector<std::int32_t> cu_seqlens = {};  ///< where documents start, and n; none: one document
  std::vector<std::int64_t> positions = {};  ///< (n), or none: as the options say. For methods that
                                             ///< train on positions of their own (PoSE, RandPos)
};

/// Each id but the last is a token whose target is the id after it. ids: (n + 1)
/// \throws Error(usage) for fewer than two ids
inline TrainingSequence next_token_sequence(std::span<const TokenId> ids) {
  require(ids.size() >= 2, "at least two ids");
  TrainingSequence s;
  s.tokens.assign(ids.begin(), ids.end() - 1);
  s.targets.assign(ids.begin() + 1, ids.end());
  return s;
}

/// The same with `weights[i]` for the loss of id i; what weighs nothing is not scored.
/// ids, weights: (n + 1)
inline TrainingSequence weighted_sequence(std::span<const TokenId> ids,
                                          std::span<const float> weights) {
  require(weights.size() == ids.size(), "a loss weight for each id");
  TrainingSequence s = next_token_sequence(ids);
  s.loss_weights.assign(weights.begin() + 1, weights.end());
  for (std::size_t t = 0; t < s.targets.size(); ++t) {
    if (s.loss_weights[t] == 0) s.targets[t] = not_scored;
  }
  return s;
}

/// Leaves only the answers to be learnt. \param answers of the ids s was made of, so that id i is
/// the target of token i - 1 \throws Error(usage) for answers outside the targets
inline void learn_answers_alone(TrainingSequence& s, std::span<const AnswerSpan> answers) {
  std::vector<TokenId> targets(s.targets.size(), not_scored);
  for (const AnswerSpan& a : answers) {
    require(a.first >= 1 && a.count >= 1 &&
                static_cast<std::size_t>(a.first + a.count - 1) <= targets.size(),
            "answers within the sequence");
    for (index_t t = a.first - 1; t < a.first - 1 + a.count; ++t) {
      targets[static_cast<std::size_t>(t)] = s.targets[static_cast<std::size_t>(t)];
    }
  }
  s.targets = std::move(targets);
}

/// Cuts the documents of a sequence further, at each multiple of `window` tokens, so that attention
/// (and positions, where they are reset) ends there; targets stay.
inline void cut_into_windows(TrainingSequence& s, index_t window) {
  require(window >= 1, "window >= 1");
  const auto n = static_cast<index_t>(s.tokens.size());
  std::vector<std::int32_t> cuts = s.cu_seqlens;
  for (index_t at = 0; at < n; at += window) cuts.push_back(static_cast<std::int32_t>(at));
  cuts.push_back(static_cast<std::int32_t>(n));
  std::ranges::sort(cuts);
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  s.cu_seqlens = std::move(cuts);
}

/// Attention windows that grow with the steps of a stage: w = from + (length - from) step / warm-up
/// steps, then the whole length (SkyLadder, arXiv:2503.15450, section 3; the other kind of length
/// warm-up, sorted data, is sort_documents()).
struct WindowSchedule {
  index_t from = 0;    ///< tokens of the first step's windows; 0: the whole length from the start
  double share = 0.5;  ///< of the steps, until windows have the whole length

  /// \throws Error(usage)
  void check(index_t length) const {
    require(from >= 0 && from <= length, "a window of at most the length to start from");
    require(share > 0 && share <= 1, "a share of the steps in (0, 1]");
  }
  /// Tokens of a window at step `step` of `steps`.
  index_t at(std::int64_t step, std::int64_t steps, index_t length) const {
    const double warmup = share * static_cast<double>(steps);
    if (from == 0 || static_cast<double>(step) >= warmup) return length;
    return from + static_cast<index_t>(static_cast<double>(length - from) *
                                       static_cast<double>(step) / warmup);
  }
};

}  // namespace ropewalk::inline ROPEWALK_ABI
