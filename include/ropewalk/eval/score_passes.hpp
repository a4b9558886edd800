// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Passes run in batches: short windows side by side in one forward pass fill its tiles and read
/// the weights once.

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "ropewalk/eval/passes.hpp"
#include "ropewalk/eval/perplexity.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Most tokens of a batch of several passes: enough for the tiles of several threads, and no more
/// than one window of a usual length takes in memory and may cost when a run is killed.
inline constexpr index_t default_batch_tokens = 2048;

/// Cuts a row of passes into batches, in order: the result holds the end of each batch, one past
/// its last pass. A batch feeds at most `max_tokens` tokens, each pass rounded up to the key panels
/// that it takes, so that a batch needs no more memory than one sequence of `max_tokens`; a pass
/// that is longer is a batch alone.
/// \param fed tokens fed by each pass
/// \param may_share (i) whether pass i may be in one batch with pass i - 1
template <class MayShare>
std::vector<std::size_t> cut_batches(std::span<const index_t> fed, index_t max_tokens,
                                     MayShare&& may_share) {
  std::vector<std::size_t> ends;
  index_t slots = 0;
  for (std::size_t i = 0; i < fed.size(); ++i) {
    const index_t own = round_up(fed[i], key_panel);
    if (i > 0 && (slots + own > max_tokens || !may_share(i))) {
      ends.push_back(i);
      slots = 0;
    }
    slots += own;
  }
  if (!fed.empty()) ends.push_back(fed.size());
  return ends;
}
inline std::vector<std::size_t> cut_batches(std::span<const index_t> fed, index_t max_tokens) {
  return cut_batches(fed, max_tokens, [](std::size_t) { return true; });
}

/// Passes laid side by side, as one forward pass takes them. Tokens before a pass's first_scored
/// are no targets. Storage is kept from batch to batch.
class PassBatch {
 public:
  void clear() {
    passes_.clear();
    cu_seqlens_.assign(1, 0);
    tokens_.clear();
    targets_.clear();
    results_.clear();
  }
  /// \param ids those that the pass was planned for
  /// \throws Error(usage) for a pass outside the ids
  void add(const Pass& pass, std::span<const TokenId> ids) {
    require(pass.begin >= 0 && pass.begin <= pass.end &&
                pass.end <= static_cast<index_t>(ids.size()) && pass.first_scored >= 1 &&
                pass.num_scored() >= 1,
            "passes that score something within the ids they were planned for");
    const std::span<const TokenId> own = ids.subspan(
        static_cast<std::size_t>(pass.begin), static_cast<std::size_t>(pass.end - pass.begin));
    const bool prefixed = pass.prefix != no_prefix;
    if (prefixed) tokens_.push_back(pass.prefix);
    tokens_.insert(tokens_.end(), own.begin(), own.end() - 1);
    const std::size_t first = targets_.size();
    targets_.insert(targets_.end(), own.begin() + (prefixed ? 0 : 1), own.end());
    std::fill_n(targets_.begin() + static_cast<std::ptrdiff_t>(first), pass.first_scored - 1,
                not_scored);
    results_.resize(targets_.size());
    cu_seqlens_.push_back(checked_cast<std::int32_t>(tokens_.size(), "tokens of a batch"));
    passes_.push_back(pass);
  }

  std::size_t size() const { return passes_.size(); }
  const Pass& pass(std::size_t i) const { return passes_[i]; }
  std::span<const std::int32_t> cu_seqlens() const { return cu_seqlens_; }  ///< (size() + 1)
  std::span<const TokenId> tokens() const { return tokens_; }
  std::span<const TokenId> targets() const { return targets_; }  ///< next tokens or not_scored
  std::span<HeadResult> results() { return results_; }           ///< for targets()
  std::span<const HeadResult> results() const { return results_; }

  /// Appends the losses of pass i, from its first_scored on.
  void read(std::size_t i, std::vector<double>& nll, std::vector<std::uint8_t>& top1) const {
    const auto first = static_cast<std::size_t>(cu_seqlens_[i] + passes_[i].first_scored - 1);
    for (std::size_t t = first; t < static_cast<std::size_t>(cu_seqlens_[i + 1]); ++t) {
      nll.push_back(results_[t].nll);
      top1.push_back(results_[t].argmax == targets_[t]);
    }
  }

 private:
  std::vector<Pass> passes_;
  std::vector<std::int32_t> cu_seqlens_ = {0};
  std::vector<TokenId> tokens_, targets_;
  std::vector<HeadResult> results_;
};

/// Scores passes: results of a batch for its targets, each pass with the frequencies of its
/// seq_len and as if it were alone. RunnerScorer is the model; tests use an oracle in double.
template <class S>
concept PassScorer = requires(S& score, PassBatch& batch) {
  score(batch);
};

/// A model under one frequency policy, as a PassScorer.
template <class T, FrequencyPolicy P>
class RunnerScorer {
 public:
  RunnerScorer(const Runner<T>& run, P policy) : run_(run), policy_(std::move(policy)) {}

  void operator()(PassBatch& batch) {
    plans_.clear();
    plans_.reserve(batch.size());  // they are pointed to
    of_pass_.clear();
    std::int64_t last = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const std::int64_t seq_len = batch.pass(i).seq_len;
      const std::int64_t key = policy_.length_key(seq_len);
      if (plans_.empty() || key != last) {
        plans_.push_back(make_frequency_plan(
            policy_, {.rotary_dim = run_.model->config.head_dim, .seq_len = seq_len}));
      }
      of_pass_.push_back(&plans_.back());
      last = key;
    }
    score_batch(run_, std::span<const FrequencyPlan* const>(of_pass_), batch.cu_seqlens(),
                batch.tokens(), batch.targets(), batch.results());
  }

 private:
  Runner<T> run_;
  P policy_;
  std::vector<FrequencyPlan> plans_;  // of one batch
  std::vector<const FrequencyPlan*> of_pass_;
};

/// Runs the passes in batches; after_pass(i) is called for each, in order, and may throw to stop.
/// The bits do not depend on `batch_tokens` (cut_batches).
/// \throws Error(usage) for passes outside the ids; as the scorer
template <PassScorer S, class AfterPass>
PassLosses score_passes(const PassPlan& plan, std::span<const TokenId> ids, S&& score,
                        AfterPass&& after_pass, index_t batch_tokens = default_batch_tokens) {
  std::vector<index_t> fed;
  for (const Pass& pass : plan.passes) fed.push_back(pass.num_fed());
  PassLosses losses{.offset = {0}};
  PassBatch batch;
  std::size_t i = 0;
  for (const std::size_t end : cut_batches(fed, batch_tokens)) {
    batch.clear();
    for (std::size_t p = i; p < end; ++p) batch.add(plan.passes[p], ids);
    score(batch);
    for (std::size_t b = 0; i < end; ++b, ++i) {
      batch.read(b, losses.nll, losses.top1);
      losses.offset.push_back(losses.nll.size());
      after_pass(static_cast<index_t>(i));
    }
  }
  return losses;
}
template <PassScorer S>
PassLosses score_passes(const PassPlan& plan, std::span<const TokenId> ids, S&& score) {
  return score_passes(plan, ids, score, [](index_t) {});
}

}  // namespace ropewalk::inline ROPEWALK_ABI
