// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The sequences that a training run learns from.

#include <memory>
#include <string>
#include <vector>

#include "ropewalk/text/any_tokenizer.hpp"
#include "ropewalk/text/synthetic.hpp"
#include "ropewalk/train/token_windows.hpp"

#include "train_plan.hpp"

namespace cli {

/// Documents of --text, encoded.
struct TrainTexts {
  std::vector<TokenId> ids = {};
  std::vector<std::int64_t> cu_seqlens = {0};
  std::uint64_t hash = 0;
};

/// Reads and encodes the texts. \throws as the readers
TrainTexts read_train_texts(const TrainOptions& options, const AnyTokenizer& tokenizer);

/// The data of one stage: sequence i of part p is a function of these arguments alone.
class StageData {
 public:
  /// `texts` must outlive it. \throws Error(usage) for texts that are too short
  StageData(const TrainStage& stage, const TrainTexts& texts, index_t vocab_size,
            std::uint64_t seed, std::uint32_t stage_index);

  /// The sequences of a step, and how many each part has dealt after it.
  std::vector<TrainingSequence> next_batch();
  /// Goes on after `dealt` sequences of each part.
  void resume(std::vector<std::int64_t> dealt);
  const std::vector<std::int64_t>& dealt() const { return dealer_.dealt(); }

 private:
  TrainingSequence synthetic_sequence(std::int64_t index) const;

  const TrainStage& stage_;
  TrainTexts sorted_ = {};
  std::unique_ptr<TokenWindows> random_windows_, sorted_windows_;
  std::unique_ptr<SyntheticLanguage> language_;
  std::uint64_t seed_;
  std::uint32_t stage_index_;
  MixtureDealer dealer_;
};

}  // namespace cli
