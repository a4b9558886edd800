// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Trainer: steps of AdamW on batches of sequences, in parts that fit the memory.

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/model/layer_plan.hpp"
#include "ropewalk/model/length_frequencies.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/train/adamw.hpp"
#include "ropewalk/train/add_gradients.hpp"
#include "ropewalk/train/cost.hpp"
#include "ropewalk/train/training_sequence.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

struct TrainerOptions {
  AdamWConfig optimizer = {};
  bool mask_documents = true;   ///< attention stops at the documents of a sequence
  bool reset_positions = true;  ///< positions start from 0 at each document
  bool recompute = false;       ///< activations twice rather than kept (add_gradients.hpp)
  /// Tokens of a part of a batch, or 0: as many as take 128 MiB, at least 1024; with recompute
  /// 1024. More of them cost memory and make workers wait for each other less often; they change no
  /// bit.
  index_t tokens_at_once = 0;
};

/// What a step did.
struct StepReport {
  double loss = 0;           ///< nats a scored token, weighted, of the weights before the step
  double gradient_norm = 0;  ///< before clipping
  std::int64_t tokens = 0;   ///< that the batch holds
};

/// A model in training. The loss of a batch is sum_t w_t nll_t / sum_t w_t over all its sequences.
/// Weights, optimizer state and losses have the same bits for any number of workers and any
/// tokens_at_once. T: what operands of products are rounded to, as the kernels say; weights stay
/// floats (docs/design.md, Training).
template <class T = float>
class Trainer {
 public:
  /// \throws Error(usage) for options out of range
  Trainer(Llama<float> model, AdamWState state, const TrainingKernels<T>& kernels,
          Executor executor, TrainerOptions options = {})
      : kernels_(kernels),
        executor_(executor),
        options_(options),
        trainable_(make_trainable(std::move(model), kernels, executor)),
        state_(std::move(state)),
        gradients_(make_llama_gradients(trainable_.model.config)) {
    options_.optimizer.check();
    require(options_.tokens_at_once >= 0, "tokens_at_once >= 0");
    if (options_.tokens_at_once == 0) {
      const index_t fit = (index_t{128} << 20) / token_bytes(trainable_.model.config);
      options_.tokens_at_once = options_.recompute ? 1024 : std::max<index_t>(fit, 1024);
    }
  }

  const Llama<float>& model() const { return trainable_.model; }
  const AdamWState& state() const { return state_; }
  /// What was trained, taken out of a trainer that is not used any longer.
  LlamaWeights<float> release_weights() { return std::move(trainable_.model.weights); }
  AdamWState release_state() { return std::move(state_); }

  /// One step. Each document is rotated with the frequencies of its own length (with positions of
  /// its own: as far as these reach), so methods that depend on it are trained as they are used.
  /// \throws Error(usage) for sequences that do not fit the model; Error(numeric) when the loss or
  /// the gradient is not finite, before any weight changes
  StepReport step(std::span<const TrainingSequence> batch, const LengthFrequencies& frequencies,
                  double learning_rate) {
    gradients_.clear(trainable_.model.config);
    double total = 0;
    StepReport report;
    for (const TrainingSequence& s : batch) {
      total += weight_of(s);
      report.tokens += static_cast<std::int64_t>(s.tokens.size());
    }
    require(total > 0, "a batch with scored tokens");
    for (std::size_t first = 0; first < batch.size();) {
      std::size_t end = first + 1;
      auto tokens = batch[first].tokens.size();
      while (end < batch.size() && tokens + batch[end].tokens.size() <=
                                       static_cast<std::size_t>(options_.tokens_at_once)) {
        tokens += batch[end++].tokens.size();
      }
      add_part(batch.subspan(first, end - first), frequencies, 1 / total, report.loss);
      first = end;
    }
    if (!std::isfinite(report.loss)) {
      fail({.kind = ErrorClass::numeric,
            .field = "loss",
            .found = std::to_string(report.loss),
            .expected = "a finite loss: the model diverged, try a lower learning rate"});
    }
    finish_gradients(trainable_, gradients_, executor_);
    report.gradient_norm = adamw_step(trainable_, gradients_, state_, options_.optimizer,
                                      learning_rate, kernels_, executor_);
    return report;
  }

 private:
  static double weight_of(const TrainingSequence& s) {
    require(s.targets.size() == s.tokens.size(), "a target per token");
    require(s.loss_weights.empty() || s.loss_weights.size() == s.tokens.size(),
            "a loss weight per token, or none");
    double sum = 0;
    for (std::size_t t = 0; t < s.targets.size(); ++t) {
      if (s.targets[t] < 0) continue;
      sum += s.loss_weights.empty() ? 1.0 : static_cast<double>(s.loss_weights[t]);
    }
    return sum;
  }

  /// Where the segments of attention, or the documents, of a part start.
  struct Cuts {
    std::vector<std::int32_t> segments = {0};
    std::vector<std::int32_t> documents = {0};
    friend bool operator==(const Cuts&, const Cuts&) = default;
  };

  /// Adds gradients and losses of some sequences.
  void add_part(std::span<const TrainingSequence> part, const LengthFrequencies& frequencies,
                double scale, double& loss) {
    tokens_.clear();
    targets_.clear();
    weights_.clear();
    positions_.clear();
    Cuts cuts;
    for (const TrainingSequence& s : part) append(s, cuts);
    const auto n = static_cast<index_t>(tokens_.size());
    TokenRotations rotations;
    for (std::size_t d = 0; d + 1 < cuts.documents.size(); ++d) {
      const auto first = static_cast<std::size_t>(cuts.documents[d]);
      const auto count = static_cast<std::size_t>(cuts.documents[d + 1]) - first;
      const std::span positions = std::span(positions_).subspan(first, count);
      const std::int64_t length =
          std::max<std::int64_t>(std::ssize(positions), *std::ranges::max_element(positions) + 1);
      append_tokens(rotations, plan_of(frequencies, length), positions);
    }
    const BlockPlan blocks = make_block_plan(Causal{}, n, cuts.segments);
    const LayerPlan layer = make_layer_plan(rotations, blocks);
    results_.resize(tokens_.size());
    if (std::ranges::none_of(targets_, [](TokenId t) { return t >= 0; })) return;
    add_gradients(trainable_, {&layer, 1},
                  {.tokens = tokens_, .targets = targets_, .loss_weights = weights_}, kernels_,
                  executor_, workspace_, gradients_, results_,
                  {.scale = scale, .recompute = options_.recompute});
    for (std::size_t t = 0; t < targets_.size(); ++t) {
      if (targets_[t] < 0) continue;
      loss = std::fma(results_[t].nll * scale, static_cast<double>(weights_[t]), loss);
    }
  }

  void append(const TrainingSequence& s, Cuts& cuts) {
    const std::size_t n = s.tokens.size();
    require(s.positions.empty() || s.positions.size() == n, "a position per token, or none");
    const auto base = static_cast<std::int32_t>(tokens_.size());
    const std::int32_t whole[2] = {0, static_cast<std::int32_t>(n)};
    const std::span<const std::int32_t> documents =
        s.cu_seqlens.empty() ? std::span<const std::int32_t>(whole) : s.cu_seqlens;
    require(documents.front() == 0 && documents.back() == whole[1], "cu_seqlens from 0 to n");
    tokens_.insert(tokens_.end(), s.tokens.begin(), s.tokens.end());
    targets_.insert(targets_.end(), s.targets.begin(), s.targets.end());
    if (s.loss_weights.empty()) {
      weights_.resize(tokens_.size(), 1.0f);
    } else {
      weights_.insert(weights_.end(), s.loss_weights.begin(), s.loss_weights.end());
    }
    const auto cut_at = [base](std::vector<std::int32_t>& cut, std::span<const std::int32_t> at) {
      for (const std::int32_t c : at.subspan(1)) {
        if (base + c > cut.back()) cut.push_back(base + c);
      }
    };
    cut_at(cuts.segments, options_.mask_documents ? documents : std::span(whole));
    // Frequencies of a length are those of what attends and counts positions together.
    const bool apart = options_.mask_documents || options_.reset_positions;
    cut_at(cuts.documents, apart ? documents : std::span(whole));
    if (!s.positions.empty()) {
      positions_.insert(positions_.end(), s.positions.begin(), s.positions.end());
    } else {
      const DocumentRestart restart{options_.reset_positions ? documents : std::span(whole)};
      const std::vector<std::int64_t> positions = batch_positions(restart);
      positions_.insert(positions_.end(), positions.begin(), positions.end());
    }
  }

  const FrequencyPlan& plan_of(const LengthFrequencies& frequencies, std::int64_t length) {
    if (plans_of_ != &frequencies) plans_.clear();
    plans_of_ = &frequencies;
    const std::int64_t key = frequencies.key(length);
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    return plans_.emplace(key, frequencies.plan(length)).first->second;
  }

  TrainingKernels<T> kernels_;
  Executor executor_;
  TrainerOptions options_;
  TrainableLlama<T> trainable_;
  AdamWState state_;
  LlamaGradients gradients_;
  Workspace workspace_;
  std::vector<TokenId> tokens_, targets_;
  std::vector<float> weights_;
  std::vector<std::int64_t> positions_;
  std::vector<HeadResult> results_;
  std::map<std::int64_t, FrequencyPlan> plans_;
  const LengthFrequencies* plans_of_ = nullptr;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
