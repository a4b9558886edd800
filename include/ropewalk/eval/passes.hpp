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

#include "ropewalk/eval/perplexity.hpp"
#include "ropewalk/eval/windows.hpp"

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
  friend bool operator==(const Pass&, const Pass&) = default;
};

/// Passes of several requests, and which pass each of their windows reads.
struct PassPlan {
  std::vector<Pass> passes = {};
  std::vector<std::vector<index_t>> pass_of = {};  ///< [request][window] -> passes

  /// Tokens fed to the model: a pass feeds all its tokens but the last, which predicts nothing.
  std::int64_t fed_tokens() const {
    std::int64_t sum = 0;
    for (const Pass& pass : passes) sum += pass.num_tokens() - 1;
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

/// Scores the tokens of one pass. `tokens` predict `targets` (the next tokens, not_scored where
/// nobody asks); results[t] is for targets[t]; `seq_len` gives the frequencies. RunnerScorer is the
/// model; tests use an oracle in double.
template <class S>
concept WindowScorer = requires(S& score, std::int64_t seq_len, std::span<const TokenId> tokens,
                                std::span<const TokenId> targets, std::span<HeadResult> results) {
  score(seq_len, tokens, targets, results);
};

/// A model under one frequency policy, as a WindowScorer. One plan of frequencies is kept, of the
/// length key last asked for: passes come ordered by it.
template <class T, FrequencyPolicy P>
class RunnerScorer {
 public:
  RunnerScorer(const Runner<T>& run, P policy) : run_(run), policy_(std::move(policy)) {}

  void operator()(std::int64_t seq_len, std::span<const TokenId> tokens,
                  std::span<const TokenId> targets, std::span<HeadResult> results) {
    score_sequence(run_, frequencies(seq_len), tokens, targets, {}, results);
  }
  /// What a sequence of that length is rotated with.
  const FrequencyPlan& frequencies(std::int64_t seq_len) {
    const std::int64_t key = policy_.length_key(seq_len);
    if (plan_.inv_freq.empty() || key != key_) {
      plan_ = make_frequency_plan(policy_,
                                  {.rotary_dim = run_.model->config.head_dim, .seq_len = seq_len});
      key_ = key;
    }
    return plan_;
  }

 private:
  Runner<T> run_;
  P policy_;
  FrequencyPlan plan_ = {};
  std::int64_t key_ = 0;
};

/// Losses of passes, from each pass's first_scored on.
struct PassLosses {
  std::vector<std::size_t> offset = {};  ///< (passes + 1)
  std::vector<double> nll = {};          ///< nats
  std::vector<std::uint8_t> top1 = {};   ///< 1 where the token was the argmax
};

/// Runs the passes in order; after_pass(i) is called after each and may throw to stop.
/// \throws Error(usage) for passes outside the ids; as the scorer
template <WindowScorer S, class AfterPass>
PassLosses score_passes(const PassPlan& plan, std::span<const TokenId> ids, S&& score,
                        AfterPass&& after_pass) {
  PassLosses losses{.offset = {0}};
  std::size_t total = 0;
  for (const Pass& pass : plan.passes) {
    require(pass.begin >= 0 && pass.end <= static_cast<index_t>(ids.size()) &&
                pass.first_scored >= 1 && pass.num_tokens() > pass.first_scored,
            "passes that score something within the ids they were planned for");
    total += static_cast<std::size_t>(pass.num_tokens() - pass.first_scored);
  }
  losses.nll.reserve(total);
  losses.top1.reserve(total);
  std::vector<TokenId> tokens, targets;
  std::vector<HeadResult> results;
  for (std::size_t i = 0; i < plan.passes.size(); ++i) {
    const Pass& pass = plan.passes[i];
    const bool prefixed = pass.prefix != no_prefix;
    tokens.resize(static_cast<std::size_t>(pass.num_tokens()));
    if (prefixed) tokens[0] = pass.prefix;
    std::copy(ids.begin() + pass.begin, ids.begin() + pass.end, tokens.begin() + prefixed);
    targets.assign(tokens.begin() + 1, tokens.end());
    const auto first = static_cast<std::size_t>(pass.first_scored) - 1;
    std::fill_n(targets.begin(), first, not_scored);
    results.assign(targets.size(), {});
    score(pass.seq_len, std::span<const TokenId>(tokens).first(targets.size()),
          std::span<const TokenId>(targets), std::span<HeadResult>(results));
    for (std::size_t t = first; t < targets.size(); ++t) {
      losses.nll.push_back(results[t].nll);
      losses.top1.push_back(results[t].argmax == targets[t]);
    }
    losses.offset.push_back(losses.nll.size());
    after_pass(static_cast<index_t>(i));
  }
  return losses;
}
template <WindowScorer S>
PassLosses score_passes(const PassPlan& plan, std::span<const TokenId> ids, S&& score) {
  return score_passes(plan, ids, score, [](index_t) {});
}

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
