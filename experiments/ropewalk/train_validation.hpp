// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Losses at several lengths while a model is trained.

#include <vector>

#include "ropewalk/eval/perplexity.hpp"
#include "ropewalk/model/length_frequencies.hpp"

#include "train_data.hpp"

namespace cli {

/// Windows that are not trained on, and the lengths of their beginnings that are scored: those that
/// `ropewalk sweep` scores with the same number of windows.
class Validation {
 public:
  /// Nothing to do without --validate-lengths. \param tokenizer for --validate-text
  /// \throws Error(usage | mismatch); as the readers
  Validation(const TrainOptions& options, const AnyTokenizer* tokenizer, index_t vocab_size);

  bool empty() const { return lengths_.empty(); }
  const std::vector<std::int64_t>& lengths() const { return lengths_; }
  /// Steps between.
  std::int64_t every() const { return every_; }
  /// Whether it is due after that step.
  bool is_due(std::int64_t step) const { return !empty() && step % every_ == 0; }
  /// Mean loss at each length, nats a token. \throws Stopped
  std::vector<double> losses(const Llama<float>& model, const LengthFrequencies& frequencies,
                             const KernelTable<float>& kernels, const Executor& executor);
  /// Of the ids.
  std::uint64_t hash() const;

 private:
  std::vector<std::int64_t> lengths_;  // ascending
  std::int64_t every_;
  bool quiet_;
  std::vector<std::vector<TokenId>> windows_;  // of the longest length and one id more
  Workspace workspace_;
};

}  // namespace cli
