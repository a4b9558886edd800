// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Sampling: from the logits of the last position to the next token.

#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/rng.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// How the next token is chosen. Applied in this order, as transformers does: repetition penalty,
/// temperature, top-k, top-p. All of it in double.
struct SamplingConfig {
  /// Divides the logits; 0 takes the largest logit after the penalty, whatever top_k and top_p say.
  double temperature = 0;
  /// Only the k largest logits stay, of equal ones those with lower ids (transformers keeps all
  /// that equal the k-th); 0: all.
  std::int64_t top_k = 0;
  /// A token stays while those more probable than it (of equal ones, those with lower ids) hold
  /// less than this share; so the most probable one always stays. 1: all.
  double top_p = 1;
  /// Logits of tokens seen before are divided by this if positive, else multiplied; 1: nothing.
  /// Source: arXiv:1909.05858, section 4.1, with transformers' case for negative logits.
  double repetition_penalty = 1;
  std::uint64_t seed = 0;

  /// Whether the logits are needed, not the argmax alone.
  bool needs_logits() const { return temperature != 0 || repetition_penalty != 1; }

  /// \throws Error(usage) naming the field and its range.
  void check() const {
    const auto rule = [](bool holds, const char* field, const std::string& found,
                         const char* expected) {
      if (holds) return;
      fail({.kind = ErrorClass::usage, .field = field, .found = found, .expected = expected});
    };
    rule(temperature >= 0 && elementary::is_finite(temperature), "temperature",
         std::to_string(temperature), "a finite number of at least 0");
    rule(top_k >= 0, "top_k", std::to_string(top_k), "a whole number of at least 0 (0: no limit)");
    rule(top_p > 0 && top_p <= 1, "top_p", std::to_string(top_p), "a number in (0, 1]");
    rule(repetition_penalty > 0 && elementary::is_finite(repetition_penalty), "repetition_penalty",
         std::to_string(repetition_penalty), "a finite number above 0");
  }
};

/// A token that may come next.
struct TokenProbability {
  TokenId id = 0;
  double probability = 0;
};

namespace detail {

struct ScoredToken {
  TokenId id = 0;
  double score = 0;   // <= 0: the largest is 0
  double weight = 0;  // e^score
};

/// By score, the lower id first among equals: a total order.
inline bool ranks_before(const ScoredToken& a, const ScoredToken& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

/// How many of the first tokens in rank order hold `share` of the weight. Sorts no more of them
/// than it needs to.
inline std::size_t nucleus_size(std::vector<ScoredToken>& tokens, double share) {
  double total = 0;
  for (const ScoredToken& t : tokens) total += t.weight;
  const double enough = share * total;
  std::size_t sorted = 0, kept = 0;
  double above = 0;  // weight of the tokens before `kept`
  while (kept < tokens.size()) {
    if (kept == sorted) {
      const std::size_t next = std::min(tokens.size(), std::max<std::size_t>(64, 4 * sorted));
      const auto begin = tokens.begin() + static_cast<index_t>(sorted);
      std::partial_sort(begin, tokens.begin() + static_cast<index_t>(next), tokens.end(),
                        ranks_before);
      sorted = next;
    }
    if (kept > 0 && !(above < enough)) break;
    above += tokens[kept++].weight;
  }
  return kept;
}

}  // namespace detail

/// Turns logits into the probabilities of the tokens that may come next, in ascending order of ids;
/// keeps its memory from call to call.
class TokenSampler {
 public:
  /// \throws Error(usage) as SamplingConfig::check
  explicit TokenSampler(const SamplingConfig& config) : config_(config) { config_.check(); }

  const SamplingConfig& config() const { return config_; }

  /// What remains after penalty, temperature, top-k and top-p; probabilities add up to 1. At
  /// temperature 0 the largest logit alone, of equal ones the lowest id.
  /// \param logits (V) natural units; -inf: never \param seen ids in [0, V), each any number of
  /// times
  /// \throws Error(numeric) for a logit that is NaN or +inf, or when all are -inf
  std::span<const TokenProbability> probabilities(std::span<const double> logits,
                                                  std::span<const TokenId> seen) {
    take_scores(logits, seen);
    if (config_.temperature == 0) {
      const auto best = std::min_element(tokens_.begin(), tokens_.end(), detail::ranks_before);
      out_ = {{best->id, 1.0}};
      return out_;
    }
    const auto k = static_cast<std::size_t>(config_.top_k);
    if (k > 0 && k < tokens_.size()) {
      std::nth_element(tokens_.begin(), tokens_.begin() + static_cast<index_t>(k - 1),
                       tokens_.end(), detail::ranks_before);
      tokens_.resize(k);
      restore_ids();  // sums are taken in the order of ids, whatever the selection did
    }
    if (config_.top_p < 1) {
      tokens_.resize(detail::nucleus_size(tokens_, config_.top_p));
      restore_ids();
    }
    double total = 0;
    for (const detail::ScoredToken& t : tokens_) total += t.weight;
    out_.clear();
    for (const detail::ScoredToken& t : tokens_) {
      if (t.weight > 0) out_.push_back({t.id, t.weight / total});
    }
    return out_;
  }

  /// The token of step `step`: a function of the logits, the configuration (seed included) and the
  /// step. Parameters and errors as probabilities().
  TokenId sample(std::span<const double> logits, std::span<const TokenId> seen,
                 std::uint64_t step) {
    const std::span<const TokenProbability> choices = probabilities(logits, seen);
    const double at = Random{.seed = config_.seed, .stream = stream}.uniform(step);
    double below = 0;
    for (const TokenProbability& choice : choices) {
      below += choice.probability;
      if (at < below) return choice.id;
    }
    return choices.back().id;  // the sum of the probabilities, rounded, may end below 1
  }

 private:
  static constexpr std::uint32_t stream = 0x73616d70;  // numbers for sampling, and for nothing else

  /// Penalty, check, temperature: fills tokens_ with the possible ones in the order of ids.
  void take_scores(std::span<const double> logits, std::span<const TokenId> seen) {
    require(!logits.empty(), "at least one logit");
    penalized_.assign(logits.begin(), logits.end());
    if (config_.repetition_penalty != 1) {
      for (const TokenId id : seen) {
        require(id >= 0 && static_cast<std::size_t>(id) < logits.size(), "seen ids in [0, V)");
        const double logit = logits[static_cast<std::size_t>(id)];  // so twice seen is as once
        penalized_[static_cast<std::size_t>(id)] =
            logit > 0 ? logit / config_.repetition_penalty : logit * config_.repetition_penalty;
      }
    }
    double largest = -std::numeric_limits<double>::infinity();
    for (std::size_t v = 0; v < penalized_.size(); ++v) {
      const double logit = penalized_[v];
      if (!(logit < std::numeric_limits<double>::infinity())) {
        fail({.kind = ErrorClass::numeric,
              .field = "logit of id " + std::to_string(v),
              .found = std::to_string(logit),
              .expected = "a finite number or -inf"});
      }
      largest = std::max(largest, logit);
    }
    if (!elementary::is_finite(largest)) {
      fail({.kind = ErrorClass::numeric,
            .field = "logits",
            .found = "-inf for every id",
            .expected = "at least one token that may come next"});
    }
    // Differences first: a small temperature must not make infinities of finite logits.
    const double temperature = config_.temperature == 0 ? 1 : config_.temperature;
    tokens_.clear();
    for (std::size_t v = 0; v < penalized_.size(); ++v) {
      const double score = (penalized_[v] - largest) / temperature;
      tokens_.push_back({static_cast<TokenId>(v), score, elementary::exp(score)});
    }
  }
  void restore_ids() {
    std::sort(
        tokens_.begin(), tokens_.end(),
        [](const detail::ScoredToken& a, const detail::ScoredToken& b) { return a.id < b.id; });
  }

  SamplingConfig config_;
  std::vector<double> penalized_;
  std::vector<detail::ScoredToken> tokens_;
  std::vector<TokenProbability> out_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
