// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Scores of answers within streams: exact match, loss and gap to a wrong answer, by distance.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/core/answer_span.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/eval/compensated_sum.hpp"
#include "ropewalk/model/head.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// How a model took one answer.
struct AnswerScore {
  std::int64_t stream = 0;  ///< answers of one stream are not independent of each other
  index_t distance = 0;     ///< from fact to answer, tokens
  bool exact = false;       ///< every token was the argmax, given the right ones before it
  double nll = 0;           ///< mean per token, nats
  /// Mean per token of the wrong answer's nll minus the right one's: > 0 where the model prefers
  /// the right one. NaN: the wrong answer was not scored.
  double gap = std::numeric_limits<double>::quiet_NaN();
};

/// Score of an answer. \param tokens of the stream \param results (tokens.size() - 1), results[i]
/// of target tokens[i + 1] \throws Error(usage) for an answer outside the tokens, or of token 0,
/// which nothing predicts
inline AnswerScore score_answer(const AnswerSpan& answer, std::span<const TokenId> tokens,
                                std::span<const HeadResult> results, std::int64_t stream = 0) {
  const auto n = static_cast<index_t>(tokens.size());
  require(answer.first >= 1 && answer.count >= 1 && answer.first <= n - answer.count &&
              results.size() + 1 == tokens.size(),
          "an answer after the first token, and the result of each later token");
  AnswerScore score{.stream = stream, .distance = answer.distance(), .exact = true};
  CompensatedSum sum;
  for (index_t t = answer.first; t < answer.first + answer.count; ++t) {
    const HeadResult& r = results[static_cast<std::size_t>(t - 1)];
    sum.add(r.nll);
    score.exact = score.exact && r.argmax == tokens[static_cast<std::size_t>(t)];
  }
  score.nll = sum.value() / static_cast<double>(answer.count);
  return score;
}

/// The gap to a wrong answer. \param results of the wrong variant (wrong_variant in
/// text/retrieval.hpp), which ends with that answer: results[i] of its token i + 1
/// \throws Error(usage) when the results do not end where the answer does
inline double answer_gap(const AnswerScore& right, const AnswerSpan& answer,
                         std::span<const HeadResult> results) {
  require(answer.first >= 1 && answer.count >= 1 &&
              static_cast<index_t>(results.size()) == answer.first + answer.count - 1,
          "the results of a stream that ends with the answer");
  CompensatedSum sum;
  for (const HeadResult& r : results.last(static_cast<std::size_t>(answer.count))) sum.add(r.nll);
  return sum.value() / static_cast<double>(answer.count) - right.nll;
}

/// A mean over answers and its standard error, over streams as if they were independent; NaN where
/// there is nothing to tell it from.
struct AnswerMean {
  double mean = std::numeric_limits<double>::quiet_NaN();
  double se = std::numeric_limits<double>::quiet_NaN();
};

/// Answers at distances [distance, 2 distance).
struct DistanceBin {
  index_t distance = 1;  ///< a power of two
  std::int64_t answers = 0;
  std::int64_t streams = 0;
  AnswerMean exact = {};  ///< share
  AnswerMean nll = {};    ///< nats per token, each answer of equal weight
  AnswerMean gap = {};    ///< of the answers whose wrong variant was scored
};

namespace detail {

/// Mean of value(score) over scores (ascending in stream), those that are NaN left out. The error
/// is that of a ratio of sums over streams: m / (m - 1) sum_s (sum_i (x_i - mean))^2 / n^2.
template <class Value>
AnswerMean answer_mean(std::span<const AnswerScore> scores, Value value) {
  CompensatedSum sum;
  double count = 0;
  for (const AnswerScore& s : scores) {
    if (std::isnan(value(s))) continue;
    sum.add(value(s));
    ++count;
  }
  if (count == 0) return {};
  const double mean = sum.value() / count;
  double squares = 0, streams = 0;
  for (std::size_t i = 0; i < scores.size();) {
    const std::int64_t stream = scores[i].stream;
    bool any = false;
    double deviation = 0;
    for (; i < scores.size() && scores[i].stream == stream; ++i) {
      if (std::isnan(value(scores[i]))) continue;
      deviation += value(scores[i]) - mean;
      any = true;
    }
    squares = std::fma(deviation, deviation, squares);
    streams += any;
  }
  if (streams < 2) return {.mean = mean};
  return {.mean = mean, .se = std::sqrt(squares * (streams / (streams - 1))) / count};
}

inline DistanceBin summarize_bin(index_t distance, std::span<const AnswerScore> scores) {
  DistanceBin bin{.distance = distance, .answers = static_cast<std::int64_t>(scores.size())};
  for (std::size_t i = 0; i < scores.size(); ++i) {
    bin.streams += i == 0 || scores[i].stream != scores[i - 1].stream;
  }
  bin.exact = answer_mean(scores, [](const AnswerScore& s) { return s.exact ? 1.0 : 0.0; });
  bin.nll = answer_mean(scores, [](const AnswerScore& s) { return s.nll; });
  bin.gap = answer_mean(scores, [](const AnswerScore& s) { return s.gap; });
  return bin;
}

}  // namespace detail

/// Scores in bins [1, 2), [2, 4), ... of distance, ascending; bins without answers are left out. A
/// loss that is NaN would be left out of a mean, so it is refused.
/// \throws Error(usage) for a distance below 1, Error(numeric) for a loss that is NaN
inline std::vector<DistanceBin> answers_by_distance(std::vector<AnswerScore> scores) {
  for (const AnswerScore& s : scores) {
    require(s.distance >= 1, "facts before their answers");
    if (std::isnan(s.nll)) {
      fail({.kind = ErrorClass::numeric,
            .where = "stream " + std::to_string(s.stream),
            .field = "nll of an answer",
            .expected = "a number"});
    }
  }
  const auto octave = [](const AnswerScore& s) {
    return std::bit_width(static_cast<std::uint64_t>(s.distance)) - 1;
  };
  std::stable_sort(scores.begin(), scores.end(), [&](const AnswerScore& a, const AnswerScore& b) {
    return octave(a) != octave(b) ? octave(a) < octave(b) : a.stream < b.stream;
  });
  std::vector<DistanceBin> bins;
  for (std::size_t i = 0; i < scores.size();) {
    std::size_t end = i;
    while (end < scores.size() && octave(scores[end]) == octave(scores[i])) ++end;
    bins.push_back(detail::summarize_bin(index_t{1} << octave(scores[i]),
                                         std::span(scores).subspan(i, end - i)));
    i = end;
  }
  return bins;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
