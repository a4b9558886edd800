// SPDX-License-Identifier: Apache-2.0
#include "train_data.hpp"

#include "ropewalk/core/hash.hpp"
#include "ropewalk/text/documents.hpp"

namespace cli {

namespace {

std::vector<double> shares_of(const TrainStage& stage) {
  std::vector<double> shares;
  for (const MixturePart& p : stage.mixture) shares.push_back(p.share);
  return shares;
}

}  // namespace

TrainTexts read_train_texts(const TrainOptions& options, const AnyTokenizer& tokenizer) {
  EncodedDocuments out;
  for (const std::string& path : options.texts) {
    const FileSource source(path);
    const std::string content = read_text(source, std::uint64_t{1} << 40);
    source.check_unchanged();
    encode_documents(tokenizer, split_documents(content, options.document_separator),
                     parse_bos_policy(options.bos), out);
  }
  TrainTexts texts{.ids = std::move(out.tokens.ids), .cu_seqlens = std::move(out.cu_seqlens)};
  Hasher hash;
  hash.bytes(std::as_bytes(std::span<const TokenId>(texts.ids)));
  hash.bytes(std::as_bytes(std::span<const std::int64_t>(texts.cu_seqlens)));
  texts.hash = hash.digest();
  return texts;
}

StageData::StageData(const TrainStage& stage, const TrainTexts& texts, index_t vocab_size,
                     std::uint64_t seed, std::uint32_t stage_index)
    : stage_(stage), seed_(seed), stage_index_(stage_index), dealer_(shares_of(stage)) {
  for (const MixturePart& part : stage.mixture) {
    if (part.source == "synthetic") {
      language_ = std::make_unique<SyntheticLanguage>();
      if (language_->vocab_size() > vocab_size) {
        fail({.kind = ErrorClass::mismatch,
              .field = "vocab_size",
              .found = std::to_string(vocab_size) + " ids of the model",
              .expected = "at least the " + std::to_string(language_->vocab_size()) +
                          " of the synthetic language",
              .fix = "Train on --text, or on a model made by --preset without it"});
      }
      continue;
    }
    if (texts.ids.empty()) {
      fail_usage("--text", "nothing", "a text: a part of the mixture is " + part.source);
    }
    const Random random{.seed = seed, .stream = 0x74657874 + stage_index, .step = 0};
    if (part.source == "text") {
      random_windows_ =
          std::make_unique<TokenWindows>(PackedDocuments{texts.ids, texts.cu_seqlens}, stage.length,
                                         WindowOrder::random, random, stage.mask_documents);
    } else {
      sorted_ = texts;
      sort_documents(sorted_.ids, sorted_.cu_seqlens);
      sorted_windows_ = std::make_unique<TokenWindows>(
          PackedDocuments{sorted_.ids, sorted_.cu_seqlens}, stage.length, WindowOrder::given,
          random, stage.mask_documents);
    }
  }
}

TrainingSequence StageData::synthetic_sequence(std::int64_t index) const {
  // Documents of validation have streams of their own: see docs/formats.md.
  const std::uint64_t stream = seed_ + (std::uint64_t{stage_index_} << 32);
  const std::vector<TokenId> ids =
      language_->tokens(stream, static_cast<std::uint32_t>(index), stage_.length + 1);
  return {.tokens = {ids.begin(), ids.end() - 1},
          .targets = {ids.begin() + 1, ids.end()},
          .loss_weights = {},
          .cu_seqlens = {},
          .positions = {}};
}

std::vector<TrainingSequence> StageData::next_batch() {
  std::vector<TrainingSequence> batch;
  for (index_t i = 0; i < stage_.sequences(); ++i) {
    const MixtureDealer::Turn turn = dealer_.next();
    const std::string& source = stage_.mixture[turn.part].source;
    batch.push_back(source == "synthetic" ? synthetic_sequence(turn.index)
                    : source == "text"    ? random_windows_->sequence(turn.index)
                                          : sorted_windows_->sequence(turn.index));
  }
  return batch;
}

void StageData::resume(std::vector<std::int64_t> dealt) {
  dealer_ = MixtureDealer(shares_of(stage_), std::move(dealt));
}

}  // namespace cli
