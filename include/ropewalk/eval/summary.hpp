// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a protocol says of scored windows: perplexity, bits per byte, losses by position.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "ropewalk/attention/softmax_state.hpp"
#include "ropewalk/core/elementary.hpp"
#include "ropewalk/eval/compensated_sum.hpp"
#include "ropewalk/eval/passes.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Losses of tokens that had [context, 2 context) tokens before them in their window, the prefix
/// token included.
struct PositionBin {
  index_t context = 1;      ///< a power of two
  std::int64_t tokens = 0;  ///< scored
  double nll = 0;           ///< mean, nats
};

/// A row's figures. What is unknown is NaN (or 0 where it is a count).
struct ProtocolSummary {
  static constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

  std::string protocol = {};        ///< the preset's name
  std::string protocol_text = {};   ///< canonical_text
  std::uint64_t protocol_hash = 0;  ///< of every knob
  index_t documents = 0;
  index_t windows = 0;
  std::int64_t tokens = 0;  ///< scored; one that several windows score counts in each
  std::int64_t bytes = 0;   ///< of text that the scored tokens stand for; 0: unknown
  double nll = unknown;     ///< the protocol's own average; ppl is its exponential
  double ppl = unknown;     ///< what the peer prints
  /// Standard error of nll from the scatter of windows (documents under document_mean and
  /// mean_ppl), as if they were independent: see bootstrap.hpp where they overlap. NaN for one.
  double se = unknown;
  double token_nll = unknown;  ///< plain mean over scored tokens, whatever the protocol averages
  double nll_sum = unknown;    ///< of scored tokens, nats
  double top1 = unknown;       ///< share of scored tokens that were the argmax
  double bits_per_byte = unknown;  ///< nll_sum / (bytes ln 2)
  /// exp(nats per word of the original text): nll_sum / words where every token is scored once,
  /// else words are taken in proportion to the bytes scored.
  double word_ppl = unknown;
  double last_quarter_nll = unknown;   ///< mean over the last quarter of each window's predictions
  std::vector<PositionBin> bins = {};  ///< [1, 2), [2, 4), ... up to the longest context
  index_t nonfinite_window = -1;       ///< the first window with a loss that is not finite
  index_t nonfinite_token = -1;        ///< and that token's place in the window
};

namespace detail {

/// A group whose mean is averaged: a window or a document.
struct LossGroup {
  double sum = 0;     ///< nats
  double count = 0;   ///< tokens
  double weight = 0;  ///< in the average of means; any scale
  double mean() const { return sum / count; }
};

/// Standard error of sum(weight x) / sum(weight) over independent groups, x their means: the
/// linearised variance of a ratio, n / (n - 1) sum (weight (x - mean))^2 / sum(weight)^2.
template <class ValueOf>
double error_of_mean(const std::vector<LossGroup>& groups, double mean, ValueOf value_of) {
  const auto n = static_cast<double>(groups.size());
  if (groups.size() < 2) return ProtocolSummary::unknown;
  double squares = 0, weights = 0;
  const double unit = groups.front().weight;
  bool equal = true;
  for (const LossGroup& g : groups) {
    const double d = value_of(g) - mean;
    const double scaled = g.weight == unit ? d : g.weight / unit * d;
    squares = std::fma(scaled, scaled, squares);
    weights += g.weight / unit;
    equal = equal && g.weight == unit;
  }
  if (equal) return std::sqrt(squares / (n - 1) / n);
  return std::sqrt(squares * (n / (n - 1))) / weights;
}

inline std::vector<LossGroup> window_groups(const WindowPlan& plan, const ScoredLosses& losses) {
  std::vector<LossGroup> groups;
  const std::size_t batch = static_cast<std::size_t>(plan.protocol.windows_per_mean);
  for (std::size_t w = 0; w < plan.windows.size(); ++w) {
    CompensatedSum sum;
    for (const double x : losses.window(static_cast<index_t>(w))) sum.add(x);
    double weight = plan.windows[w].weight;
    if (plan.protocol.aggregation == Aggregation::window_mean) {
      const std::size_t first = w - w % batch;
      weight = 1 / static_cast<double>(std::min(batch, plan.windows.size() - first));
    }
    groups.push_back({sum.value(), static_cast<double>(plan.windows[w].num_scored()), weight});
  }
  return groups;
}

inline std::vector<LossGroup> document_groups(const WindowPlan& plan,
                                              const std::vector<LossGroup>& windows) {
  std::vector<LossGroup> groups;
  for (std::size_t w = 0; w < windows.size();) {
    CompensatedSum sum;
    double count = 0;
    const index_t document = plan.windows[w].text;
    for (; w < windows.size() && plan.windows[w].text == document; ++w) {
      sum.add(windows[w].sum);
      count += windows[w].count;
    }
    groups.push_back({sum.value(), count, 1});
  }
  return groups;
}

/// nll, ppl and se as the protocol averages.
inline void average(const WindowPlan& plan, const ScoredLosses& losses, ProtocolSummary& s) {
  const Protocol& p = plan.protocol;
  const std::vector<LossGroup> windows = window_groups(plan, losses);
  CompensatedSum total;
  for (const LossGroup& w : windows) total.add(w.sum);
  s.nll_sum = total.value();
  s.token_nll = s.nll_sum / static_cast<double>(s.tokens);

  const bool by_document =
      p.aggregation == Aggregation::document_mean || p.aggregation == Aggregation::mean_ppl;
  const std::vector<LossGroup> groups = by_document ? document_groups(plan, windows) : windows;
  const auto power = [&p](double nats) {
    return p.exponential_base == 0 ? elementary::exp(nats)
                                   : elementary::pow(p.exponential_base, nats);
  };
  if (p.aggregation == Aggregation::mean_ppl) {
    CompensatedSum ppl;
    for (const LossGroup& g : groups) ppl.add(power(g.mean()));
    s.ppl = ppl.value() / static_cast<double>(groups.size());
    s.nll = elementary::log(s.ppl);
    s.se =
        error_of_mean(groups, s.ppl, [&](const LossGroup& g) { return power(g.mean()); }) / s.ppl;
    return;
  }
  if (p.aggregation == Aggregation::token && p.weight == WindowWeight::predictions) {
    s.nll = s.token_nll;
  } else {
    CompensatedSum sum, weights;
    for (const LossGroup& g : groups) {
      sum.add(std::fma(g.weight, g.mean(), 0.0));  // not to be contracted with the sum
      weights.add(g.weight);
    }
    s.nll = sum.value() / weights.value();
  }
  s.ppl = power(s.nll);
  s.se = error_of_mean(groups, s.nll, [](const LossGroup& g) { return g.mean(); });
}

}  // namespace detail

/// Figures of one request. \param losses what read_losses gives for it
/// \throws Error(usage) when plan, text and losses do not belong together, or nothing has weight
inline ProtocolSummary summarize(const WindowPlan& plan, const EvalText& text,
                                 const ScoredLosses& losses) {
  require(!plan.windows.empty() && losses.offset.size() == plan.windows.size() + 1,
          "losses of the plan's windows");
  ProtocolSummary s{.protocol = std::string(plan.protocol.name),
                    .protocol_text = canonical_text(plan.protocol),
                    .protocol_hash = protocol_hash(plan.protocol),
                    .documents = plan.documents,
                    .windows = losses.windows()};
  CompensatedSum hits, quarter;
  std::int64_t quarter_tokens = 0;
  std::vector<CompensatedSum> bin_sums;
  double weights = 0;
  for (std::size_t w = 0; w < plan.windows.size(); ++w) {
    const ScoredWindow& window = plan.windows[w];
    const std::span<const double> nll = losses.window(static_cast<index_t>(w));
    require(
        static_cast<index_t>(nll.size()) == window.num_scored() && window.end <= text.num_tokens(),
        "losses of the plan's windows, and its text");
    const index_t predictions = window.num_tokens() - 1;
    const index_t quarter_begin = window.num_tokens() - std::max<index_t>(1, predictions / 4);
    weights += window.weight;
    for (std::size_t i = 0; i < nll.size(); ++i) {
      const index_t j = window.first_scored + static_cast<index_t>(i);  // = its context
      if (!elementary::is_finite(nll[i]) && s.nonfinite_window < 0) {
        s.nonfinite_window = static_cast<index_t>(w);
        s.nonfinite_token = j;
      }
      hits.add(losses.top1[losses.offset[w] + i]);
      if (j >= quarter_begin) {
        quarter.add(nll[i]);
        ++quarter_tokens;
      }
      const auto bin = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(j)) - 1);
      while (s.bins.size() <= bin) {
        s.bins.push_back({.context = index_t{1} << s.bins.size()});
        bin_sums.emplace_back();
      }
      ++s.bins[bin].tokens;
      bin_sums[bin].add(nll[i]);
      if (!text.bytes.empty()) s.bytes += text.bytes[static_cast<std::size_t>(window.id_index(j))];
    }
    s.tokens += window.num_scored();
  }
  require(weights > 0 || plan.protocol.aggregation != Aggregation::token,
          "windows of which one has weight: a longer text");
  for (std::size_t b = 0; b < s.bins.size(); ++b) {
    s.bins[b].nll = bin_sums[b].value() / static_cast<double>(s.bins[b].tokens);
  }
  detail::average(plan, losses, s);
  s.top1 = hits.value() / static_cast<double>(s.tokens);
  s.last_quarter_nll = quarter.value() / static_cast<double>(quarter_tokens);
  if (s.bytes > 0) {
    s.bits_per_byte = s.nll_sum / (static_cast<double>(s.bytes) * ln_2);
  }
  const auto words = static_cast<double>(plan.words);
  if (plan.words > 0 && s.tokens == plan.text_tokens) {
    s.word_ppl = elementary::exp(s.nll_sum / words);
  } else if (plan.words > 0 && s.bytes > 0) {
    const double words_scored =
        words * static_cast<double>(s.bytes) / static_cast<double>(plan.text_bytes);
    s.word_ppl = elementary::exp(s.nll_sum / words_scored);
  }
  return s;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
