// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Block bootstrap: standard errors of mean losses, and of differences between two settings.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/eval/compensated_sum.hpp"
#include "ropewalk/eval/passes.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// One of a series of parts whose pooled mean is sum(total) / sum(weight): a token (loss, 1), a
/// window or a document (sum of its losses, its tokens).
struct SeriesItem {
  double total = 0;
  double weight = 0;
};

struct BootstrapOptions {
  /// Items drawn together, so that the resamples keep what neighbours have in common; 1 for
  /// independent items; 0: default_block_length.
  index_t block_length = 0;
  index_t replicates = 2000;
  double confidence = 0.95;
  std::uint64_t seed = 0;
};

/// Mean of a series and how far another such series' mean may lie from it.
struct BootstrapEstimate {
  double mean = 0;
  double se = 0;   ///< deviation of the replicates
  double low = 0;  ///< percentile interval of the replicates at the confidence asked for
  double high = 0;
  index_t items = 0;
  index_t block_length = 0;  ///< used
};

/// ceil(2 n^(1/3)) items, the growth that is optimal for the variance of a mean; the factor fits
/// correlations that fade within a few items. At most n / 4, at least 1.
/// Source: Hall, Horowitz and Jing, Biometrika 82 (1995).
inline index_t default_block_length(index_t items) {
  index_t root = 1;
  while (root * root * root < items) ++root;  // ceil of the cube root
  return std::max<index_t>(1, std::min(2 * root, items / 4));
}

namespace detail {

/// Sums over items [0, i) of a ring that is walked around twice, so that the sum of any block is a
/// difference.
inline std::vector<double> ring_sums(std::span<const SeriesItem> items,
                                     double SeriesItem::*member) {
  std::vector<double> before = {0};
  before.reserve(2 * items.size() + 1);
  CompensatedSum sum;
  for (int round = 0; round < 2; ++round) {
    for (const SeriesItem& item : items) {
      sum.add(item.*member);
      before.push_back(sum.value());
    }
  }
  return before;
}

}  // namespace detail

/// Circular moving-block bootstrap of sum(total) / sum(weight): blocks of `block_length`
/// neighbouring items, drawn with replacement, the series closed to a ring so that every item is
/// drawn equally often; the last block is cut so that a resample has as many items as the series.
/// Draw b of replicate r is a function of (seed, r, b): the same on every machine.
/// Source: Politis and Romano, "A circular block-resampling procedure" (1992).
/// **Cost:** replicates * items / block_length.
/// \throws Error(usage) for fewer than 2 items, options out of range, weights that are not positive
inline BootstrapEstimate bootstrap_mean(std::span<const SeriesItem> items,
                                        const BootstrapOptions& options = {}) {
  constexpr std::uint32_t stream = 0x626f6f74;  // numbers for resampling, and for nothing else
  const auto n = static_cast<index_t>(items.size());
  require(n >= 2, "at least two items to resample");
  require(options.block_length >= 0 && options.block_length <= n, "0 <= block_length <= items");
  require(options.replicates >= 2 && options.replicates <= 1'000'000, "2 to 1000000 replicates");
  require(options.confidence > 0 && options.confidence < 1, "0 < confidence < 1");
  const index_t length = options.block_length == 0 ? default_block_length(n) : options.block_length;

  for (const SeriesItem& item : items) {
    require(item.weight > 0 && elementary::is_finite(item.weight), "items of positive weight");
  }
  const std::vector<double> totals = detail::ring_sums(items, &SeriesItem::total);
  const std::vector<double> weights = detail::ring_sums(items, &SeriesItem::weight);
  const auto whole = static_cast<std::size_t>(n);
  BootstrapEstimate out{.mean = totals[whole] / weights[whole], .items = n, .block_length = length};

  std::vector<double> replicates(static_cast<std::size_t>(options.replicates));
  for (std::size_t r = 0; r < replicates.size(); ++r) {
    const Random random{
        .seed = options.seed, .stream = stream, .step = static_cast<std::uint32_t>(r)};
    double drawn_total = 0, drawn_weight = 0;
    for (index_t drawn = 0, b = 0; drawn < n; drawn += length, ++b) {
      const double u = random.uniform(static_cast<std::uint64_t>(b));
      const auto from = std::min<index_t>(n - 1, static_cast<index_t>(u * static_cast<double>(n)));
      const auto begin = static_cast<std::size_t>(from);
      const auto end = static_cast<std::size_t>(from + std::min(length, n - drawn));
      drawn_total += totals[end] - totals[begin];
      drawn_weight += weights[end] - weights[begin];
    }
    replicates[r] = drawn_total / drawn_weight;
  }
  CompensatedSum sum;
  for (const double x : replicates) sum.add(x);
  const double center = sum.value() / static_cast<double>(replicates.size());
  double squares = 0;
  for (const double x : replicates) squares = std::fma(x - center, x - center, squares);
  out.se = std::sqrt(squares / static_cast<double>(replicates.size() - 1));
  if (!elementary::is_finite(out.mean)) {  // NaN does not sort
    out.low = out.high = out.se = std::numeric_limits<double>::quiet_NaN();
    return out;
  }
  std::sort(replicates.begin(), replicates.end());
  const auto quantile = [&](double q) {
    const double at = q * static_cast<double>(replicates.size());
    const auto i = static_cast<std::size_t>(std::max(0.0, elementary::ceil(at) - 1));
    return replicates[std::min(i, replicates.size() - 1)];
  };
  out.low = quantile((1 - options.confidence) / 2);
  out.high = quantile((1 + options.confidence) / 2);
  return out;
}

/// What is drawn together at least.
enum class ResampleUnit {
  automatic,  ///< documents if there are 20 of them, else windows if there are 20, else tokens
  token,
  window,
  document,
};

constexpr std::string_view to_text(ResampleUnit u) {
  constexpr std::string_view names[] = {"automatic", "token", "window", "document"};
  return names[static_cast<std::size_t>(u)];
}

namespace detail {

/// The unit that `automatic` stands for here.
inline ResampleUnit resolve_unit(const WindowPlan& plan, ResampleUnit unit) {
  if (unit != ResampleUnit::automatic) return unit;
  constexpr index_t enough = 20;
  index_t documents = 0;
  for (std::size_t w = 0; w < plan.windows.size(); ++w) {
    if (w == 0 || plan.windows[w].text != plan.windows[w - 1].text) ++documents;
  }
  if (documents >= enough) return ResampleUnit::document;
  return static_cast<index_t>(plan.windows.size()) >= enough ? ResampleUnit::window
                                                             : ResampleUnit::token;
}

/// \param value_of(i) of scored token i
template <class ValueOf>
std::vector<SeriesItem> series(const WindowPlan& plan, const ScoredLosses& losses,
                               ResampleUnit unit, ValueOf value_of) {
  std::vector<SeriesItem> items;
  for (std::size_t w = 0; w < plan.windows.size(); ++w) {
    const bool same_document = w > 0 && plan.windows[w].text == plan.windows[w - 1].text;
    if (unit == ResampleUnit::window || (unit == ResampleUnit::document && !same_document)) {
      items.emplace_back();
    }
    for (std::size_t i = losses.offset[w]; i < losses.offset[w + 1]; ++i) {
      if (unit == ResampleUnit::token) items.emplace_back();
      items.back().total += value_of(i);
      items.back().weight += 1;
    }
  }
  return items;
}

/// Blocks: runs of tokens of default_block_length; windows one by one, or as many as overlap;
/// documents one by one.
template <class ValueOf>
BootstrapEstimate bootstrap_losses(const WindowPlan& plan, const ScoredLosses& losses,
                                   ResampleUnit unit, BootstrapOptions options, ValueOf value_of) {
  const std::vector<SeriesItem> items = series(plan, losses, unit, value_of);
  const auto n = static_cast<index_t>(items.size());
  if (options.block_length == 0 && unit == ResampleUnit::document) options.block_length = 1;
  if (options.block_length == 0 && unit == ResampleUnit::window) {
    options.block_length =
        std::clamp<index_t>(overlapping_windows(plan.protocol), 1, std::max<index_t>(1, n));
  }
  return bootstrap_mean(items, options);
}

}  // namespace detail

/// Bootstrap of the mean loss per scored token (ProtocolSummary::token_nll).
/// \throws Error(usage) when there are fewer than two units, and as bootstrap_mean
inline BootstrapEstimate bootstrap_token_nll(const WindowPlan& plan, const ScoredLosses& losses,
                                             ResampleUnit unit = ResampleUnit::automatic,
                                             const BootstrapOptions& options = {}) {
  require(losses.offset.size() == plan.windows.size() + 1, "losses of the plan's windows");
  return detail::bootstrap_losses(plan, losses, detail::resolve_unit(plan, unit), options,
                                  [&](std::size_t i) { return losses.nll[i]; });
}

/// Setting b against setting a on the same tokens. Negative differences: b is better.
struct PairedComparison {
  BootstrapEstimate difference = {};  ///< mean of nll_b - nll_a, nats per token
  double ppl_ratio = 1;               ///< exp(difference.mean): ppl_b / ppl_a, both per token
  double improved = 0;                ///< share of tokens that b predicts better than a
  double worse = 0;                   ///< share that it predicts worse; the rest are equal
  std::int64_t tokens = 0;
  ResampleUnit unit = ResampleUnit::token;  ///< used
};

/// Pairs token by token: what both settings find hard cancels, so the error of the difference is
/// far below that of either mean. \throws Error(usage) unless both are losses of the plan's windows
inline PairedComparison compare(const WindowPlan& plan, const ScoredLosses& a,
                                const ScoredLosses& b, ResampleUnit unit = ResampleUnit::automatic,
                                const BootstrapOptions& options = {}) {
  require(a.offset.size() == plan.windows.size() + 1 && a.offset == b.offset &&
              a.nll.size() == b.nll.size() && !a.nll.empty(),
          "losses of the same windows under both settings");
  PairedComparison out{.tokens = static_cast<std::int64_t>(a.nll.size()),
                       .unit = detail::resolve_unit(plan, unit)};
  out.difference = detail::bootstrap_losses(plan, a, out.unit, options,
                                            [&](std::size_t i) { return b.nll[i] - a.nll[i]; });
  out.ppl_ratio = elementary::exp(out.difference.mean);
  std::int64_t improved = 0, worse = 0;
  for (std::size_t i = 0; i < a.nll.size(); ++i) {
    improved += b.nll[i] < a.nll[i] ? 1 : 0;
    worse += b.nll[i] > a.nll[i] ? 1 : 0;
  }
  out.improved = static_cast<double>(improved) / static_cast<double>(out.tokens);
  out.worse = static_cast<double>(worse) / static_cast<double>(out.tokens);
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
