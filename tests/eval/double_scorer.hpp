// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A tiny random Llama in double as a PassScorer, and as the plain function that the protocols'
/// brute forces call.

#include <vector>

#include "ropewalk/eval/score_passes.hpp"
#include "ropewalk/oracle/llama.hpp"
#include "ropewalk/rope/any_frequency.hpp"

#include "support/random.hpp"

namespace ropewalk {

constexpr LlamaConfig tiny_config{.hidden_size = 16,
                                  .intermediate_size = 24,
                                  .num_hidden_layers = 1,
                                  .num_attention_heads = 2,
                                  .num_key_value_heads = 1,
                                  .head_dim = 8,
                                  .vocab_size = 23,
                                  .max_position_embeddings = 16};

/// Every call computes its window alone, with the frequencies of the length it is told.
struct DoubleScorer {
  AnyFrequency policy;
  Llama<float> float_model = random_llama(tiny_config, 4);
  oracle::DoubleLlama model = oracle::make_llama(tiny_config, float_model.weights);
  index_t calls = 0;

  void operator()(PassBatch& batch) {
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto first = static_cast<std::size_t>(batch.cu_seqlens()[i]);
      const auto count = static_cast<std::size_t>(batch.cu_seqlens()[i + 1]) - first;
      score(batch.pass(i).seq_len, batch.tokens().subspan(first, count),
            batch.targets().subspan(first, count), batch.results().subspan(first, count));
    }
  }

  void score(std::int64_t seq_len, std::span<const TokenId> tokens,
             std::span<const TokenId> targets, std::span<HeadResult> results) {
    ++calls;
    const FrequencyPlan plan =
        make_frequency_plan(policy, {.rotary_dim = tiny_config.head_dim, .seq_len = seq_len});
    const FrequencyPlan* const plans[] = {&plan};
    const auto positions = batch_positions(Identity{}, static_cast<index_t>(tokens.size()));
    const oracle::Scores scores = oracle::score(
        model, oracle::hidden_states(model, plans, tokens, positions, Causal{}), targets);
    for (std::size_t t = 0; t < results.size(); ++t) {
      results[t] = {scores.nll[t], scores.argmax[t]};
    }
  }

  /// Losses of next[t] after fed[0 .. t] for a model that is fed exactly `fed`.
  std::vector<double> losses(const std::vector<TokenId>& fed, const std::vector<TokenId>& next) {
    std::vector<HeadResult> results(fed.size());
    score(static_cast<std::int64_t>(fed.size()), fed, next, results);
    std::vector<double> out;
    for (const HeadResult& r : results) out.push_back(r.nll);
    return out;
  }
};

}  // namespace ropewalk
