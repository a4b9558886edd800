// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Forward passes that several protocols and lengths share, wherever sharing is exact.

#include <algorithm>
#include <cstdint>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "ropewalk/eval/windows.hpp"
#include "ropewalk/rope/concepts.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// One forward pass over [prefix] ids[begin, end). Losses of tokens before first_scored are read by
/// nobody.
struct Pass {
  std::int64_t seq_len = 0;  ///< any length of the frequencies' length_key: the longest asked for
  TokenId prefix = no_prefix;
  index_t begin = 0;
  index_t end = 0;
  index_t first_scored = 1;

  index_t num_tokens() const { return end - begin + (prefix != no_prefix ? 1 : 0); }
  /// Tokens fed to the model: the last one predicts nothing.
  index_t num_fed() const { return num_tokens() - 1; }
  index_t num_scored() const { return num_tokens() - first_scored; }
  friend bool operator==(const Pass&, const Pass&) = default;
};

/// Passes of several requests, and which pass each of their windows reads.
struct PassPlan {
  std::vector<Pass> passes = {};
  std::vector<std::vector<index_t>> pass_of = {};  ///< [request][window] -> passes

  /// Tokens fed to the model.
  std::int64_t fed_tokens() const {
    std::int64_t sum = 0;
    for (const Pass& pass : passes) sum += pass.num_fed();
    return sum;
  }
};

/// The fewest passes that serve all requests: windows that begin with the same tokens share the
/// longest one's pass, because under causal attention a shorter window is its prefix, bit for bit
/// (docs/design.md). Windows whose lengths the policy gives different frequencies never do.
/// Passes are ordered by length key, then by place. \param policy gives length_key(T)
template <FrequencyPolicy P>
PassPlan plan_passes(std::span<const WindowPlan> requests, const P& policy) {
  struct Use {
    std::int64_t key;
    index_t begin;
    TokenId prefix;
    std::size_t request, window;
  };
  std::vector<Use> uses;
  PassPlan plan;
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const std::vector<ScoredWindow>& windows = requests[r].windows;
    plan.pass_of.emplace_back(windows.size());
    for (std::size_t w = 0; w < windows.size(); ++w) {
      const ScoredWindow& window = windows[w];
      uses.push_back({policy.length_key(window.seq_len), window.begin, window.prefix, r, w});
    }
  }
  const auto same_pass = [](const Use& u) { return std::tie(u.key, u.begin, u.prefix); };
  std::stable_sort(uses.begin(), uses.end(),
                   [&](const Use& a, const Use& b) { return same_pass(a) < same_pass(b); });
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const ScoredWindow& window = requests[uses[i].request].windows[uses[i].window];
    if (i == 0 || same_pass(uses[i - 1]) != same_pass(uses[i])) {
      plan.passes.push_back({.seq_len = window.seq_len,
                             .prefix = window.prefix,
                             .begin = window.begin,
                             .end = window.end,
                             .first_scored = window.first_scored});
    }
    Pass& pass = plan.passes.back();
    pass.seq_len = std::max(pass.seq_len, window.seq_len);
    pass.end = std::max(pass.end, window.end);
    pass.first_scored = std::min(pass.first_scored, window.first_scored);
    plan.pass_of[uses[i].request][uses[i].window] = static_cast<index_t>(plan.passes.size()) - 1;
  }
  return plan;
}

/// Losses of passes, from each pass's first_scored on.
struct PassLosses {
  std::vector<std::size_t> offset = {};  ///< (passes + 1)
  std::vector<double> nll = {};          ///< nats
  std::vector<std::uint8_t> top1 = {};   ///< 1 where the token was the argmax
};

/// Losses of one request's scored tokens, window by window.
struct ScoredLosses {
  std::vector<std::size_t> offset = {};  ///< (windows + 1)
  std::vector<double> nll = {};          ///< of token first_scored, first_scored + 1, ...
  std::vector<std::uint8_t> top1 = {};

  index_t windows() const { return static_cast<index_t>(offset.size()) - 1; }
  std::span<const double> window(index_t w) const {
    const auto i = static_cast<std::size_t>(w);
    return std::span(nll).subspan(offset[i], offset[i + 1] - offset[i]);
  }
};

/// What request `r` of the plan reads from its passes.
inline ScoredLosses read_losses(const PassPlan& plan, const PassLosses& losses,
                                const WindowPlan& request, index_t r) {
  require(r >= 0 && r < static_cast<index_t>(plan.pass_of.size()) &&
              plan.pass_of[static_cast<std::size_t>(r)].size() == request.windows.size() &&
              losses.offset.size() == plan.passes.size() + 1,
          "a request of the plan and the losses of its passes");
  ScoredLosses out{.offset = {0}};
  for (std::size_t w = 0; w < request.windows.size(); ++w) {
    const auto p = static_cast<std::size_t>(plan.pass_of[static_cast<std::size_t>(r)][w]);
    const ScoredWindow& window = request.windows[w];
    const auto at = losses.offset[p] +
                    static_cast<std::size_t>(window.first_scored - plan.passes[p].first_scored);
    const auto count = static_cast<std::size_t>(window.num_scored());
    require(at + count <= losses.offset[p + 1], "a window within its pass");
    const auto from = static_cast<std::ptrdiff_t>(at);
    const auto to = static_cast<std::ptrdiff_t>(at + count);
    out.nll.insert(out.nll.end(), losses.nll.begin() + from, losses.nll.begin() + to);
    out.top1.insert(out.top1.end(), losses.top1.begin() + from, losses.top1.begin() + to);
    out.offset.push_back(out.nll.size());
  }
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
