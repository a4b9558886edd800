// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The sequences that a training run learns from.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ropewalk/text/any_tokenizer.hpp"
#include "ropewalk/text/documents.hpp"
#include "ropewalk/text/synthetic.hpp"
#include "ropewalk/train/mixture.hpp"
#include "ropewalk/train/token_windows.hpp"

#include "train_plan.hpp"

namespace cli {

/// Documents of files, encoded.
struct TrainTexts {
  std::vector<TokenId> ids = {};
  std::vector<std::int64_t> cu_seqlens = {0};
  std::vector<float> loss_weights = {};  ///< of each id, or none: all 1

  PackedDocuments view() const { return {ids, cu_seqlens, loss_weights}; }
};

/// Documents of texts, or of files of instructions: JSON lines of a prompt and a response.
/// \throws as the readers
TrainTexts read_train_texts(const TrainOptions& options, const std::vector<std::string>& files,
                            const AnyTokenizer& tokenizer);
TrainTexts read_instructions(const TrainOptions& options, const MixturePart& part,
                             const AnyTokenizer& tokenizer);

/// The texts that the stages of a run name, each read once.
class TrainCorpus {
 public:
  /// \param tokenizer null: no stage may read a text \throws Error(usage); as the readers
  TrainCorpus(const TrainOptions& options, const std::vector<TrainStage>& stages,
              const AnyTokenizer* tokenizer);

  const TrainTexts& texts(const MixturePart& part) const { return texts_.at(key(part)); }
  const AnyTokenizer* tokenizer() const { return tokenizer_; }
  BosPolicy bos() const { return bos_; }
  /// Of all ids, where documents begin and what they weigh.
  std::uint64_t hash() const;

 private:
  static std::string key(const MixturePart& part);

  const AnyTokenizer* tokenizer_;
  BosPolicy bos_;
  std::map<std::string, TrainTexts> texts_;
};

/// The data of one stage: sequence i of a part is a function of these arguments alone.
class StageData {
 public:
  /// `stage` and `corpus` must outlive it. \throws Error(usage) for texts that are too short
  StageData(const TrainStage& stage, const TrainCorpus& corpus, index_t vocab_size,
            std::uint64_t seed, std::uint32_t stage_index);

  StageData(const StageData&) = delete;  // parts refer to it

  /// Steps of the stage: until it has its tokens, or its epochs.
  std::int64_t steps() const { return steps_; }
  /// The sequences of step `step`, which follow those of the step before.
  std::vector<TrainingSequence> next_batch(std::int64_t step);
  /// Goes on after what each part gave: its sequences and their tokens.
  void resume(const std::vector<std::int64_t>& dealt);
  std::vector<std::int64_t> dealt() const;

 private:
  /// A part of the mixture: sequences by number.
  struct Part {
    std::function<index_t(std::int64_t)> size = {};  ///< tokens of a sequence, at most
    std::function<TrainingSequence(std::int64_t)> sequence = {};
    std::int64_t epoch = 0;  ///< sequences of one; 0: endless
  };
  Part make_part(const MixturePart& part);
  Part text_part(const MixturePart& part);
  Part language_part(const MixturePart& part);
  /// A sequence of a step: which part gives it, and its number there.
  struct Turn {
    std::size_t part;
    std::int64_t index;
  };
  /// Deals out the next step: sequences until the next one would exceed batch_tokens, or none when
  /// all epochs are through.
  std::vector<Turn> deal_step(MixtureDealer& dealer) const;
  std::int64_t count_steps() const;
  void set_positions(TrainingSequence& s, std::size_t part, std::int64_t index) const;

  const TrainStage& stage_;
  const TrainCorpus& corpus_;
  index_t vocab_size_;
  std::uint64_t seed_;
  std::uint32_t stage_index_;
  std::vector<Part> parts_;
  MixtureDealer dealer_;
  std::int64_t steps_ = 0;
};

}  // namespace cli
