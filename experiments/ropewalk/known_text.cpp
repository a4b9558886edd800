// SPDX-License-Identifier: Apache-2.0
#include "known_text.hpp"

#include <bit>
#include <cmath>

#include "ropewalk/eval/answers.hpp"
#include "ropewalk/eval/compensated_sum.hpp"

namespace cli {

namespace {

/// Mean floor of a bin of positions, and the standard error of what the losses exceed it by, from
/// the scatter of windows: (1 / n) sqrt(m / (m - 1) sum_w (sum of the window - its mean share)^2).
struct FloorBin {
  std::vector<double> floor_sums = {}, gap_sums = {};  // of each window
  std::int64_t tokens_per_window = 0;

  double floor() const {
    CompensatedSum sum;
    for (const double x : floor_sums) sum.add(x);
    return sum.value() / static_cast<double>(tokens_per_window * std::ssize(floor_sums));
  }
  double gap_se() const {
    const auto windows = static_cast<double>(gap_sums.size());
    CompensatedSum sum, squares;
    for (const double x : gap_sums) sum.add(x);
    for (const double x : gap_sums) {
      const double deviation = x - sum.value() / windows;
      squares.add(deviation * deviation);
    }
    return std::sqrt(squares.value() / (windows * (windows - 1))) /
           static_cast<double>(tokens_per_window);
  }
};

void add_floor(const KnownText& known, const ScoredLosses& losses, index_t length,
               KnownFigures& out) {
  std::vector<FloorBin> bins;
  CompensatedSum total;
  for (index_t w = 0; w < losses.windows(); ++w) {
    const std::span<const double> nll = losses.window(w);
    const auto first = static_cast<std::size_t>(w * known.window_tokens);
    for (index_t t = 1; t <= length;) {
      const auto b = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(t)) - 1);
      const index_t end = std::min<index_t>(2 * t, length + 1);
      if (bins.size() <= b) bins.emplace_back();
      CompensatedSum floor, gap;
      for (index_t i = t; i < end; ++i) {
        const double f = known.floor[first + static_cast<std::size_t>(i)];
        floor.add(f);
        gap.add(nll[static_cast<std::size_t>(i) - 1] - f);
        total.add(f);
      }
      bins[b].tokens_per_window = end - t;
      bins[b].floor_sums.push_back(floor.value());
      bins[b].gap_sums.push_back(gap.value());
      t = end;
    }
  }
  std::vector<double> floors, errors;
  for (const FloorBin& b : bins) {
    floors.push_back(b.floor());
    errors.push_back(b.gap_se());
  }
  out.results.emplace_back("floor", total.value() / static_cast<double>(losses.windows() * length));
  out.bins.emplace_back("bin_floor", floors);
  out.bins.emplace_back("bin_gap_se", errors);
}

void add_answers(const KnownText& known, const ScoredLosses& losses, index_t length,
                 KnownFigures& out) {
  std::vector<AnswerScore> scores;
  bool finite = true;
  double exact = 0;
  for (index_t w = 0; w < losses.windows(); ++w) {
    const std::span<const double> nll = losses.window(w);
    const std::size_t offset = losses.offset[static_cast<std::size_t>(w)];
    for (const AnswerSpan& a : known.answers[static_cast<std::size_t>(w)]) {
      if (a.first + a.count - 1 > length) continue;
      AnswerScore score{.stream = w, .distance = a.distance(), .exact = true};
      for (index_t t = a.first; t < a.first + a.count; ++t) {
        const auto i = static_cast<std::size_t>(t) - 1;
        score.nll += nll[i] / static_cast<double>(a.count);
        score.exact = score.exact && losses.top1[offset + i] != 0;
      }
      finite = finite && std::isfinite(score.nll);
      exact += score.exact;
      scores.push_back(score);
    }
  }
  const double share = exact / static_cast<double>(scores.size());
  out.results.emplace_back("exact", finite ? Value(share) : Value());
  std::vector<std::int64_t> distances, counts;
  std::vector<double> shares, errors, means;
  if (finite) {
    for (const DistanceBin& b : answers_by_distance(std::move(scores))) {
      distances.push_back(b.distance);
      counts.push_back(b.answers);
      shares.push_back(b.exact.mean);
      errors.push_back(b.exact.se);
      means.push_back(b.nll.mean);
    }
  }
  out.bins.emplace_back("distance", distances);
  out.bins.emplace_back("distance_answers", counts);
  out.bins.emplace_back("distance_exact", shares);
  out.bins.emplace_back("distance_exact_se", errors);
  out.bins.emplace_back("distance_nll", means);
}

}  // namespace

KnownFigures known_figures(const KnownText& known, const ScoredLosses& losses, index_t length) {
  KnownFigures out;
  if (known.empty()) {
    out.results = {{"floor", Value()}, {"exact", Value()}};
    return out;
  }
  add_floor(known, losses, length, out);
  add_answers(known, losses, length, out);
  return out;
}

}  // namespace cli
