// SPDX-License-Identifier: Apache-2.0
#include "train_data.hpp"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/io/json.hpp"
#include "ropewalk/text/documents.hpp"
#include "ropewalk/text/retrieval.hpp"
#include "ropewalk/text/retrieval_text.hpp"
#include "ropewalk/train/document_sequences.hpp"
#include "ropewalk/train/position_samples.hpp"

namespace cli {

namespace {

constexpr std::uint64_t most_bytes = std::uint64_t{1} << 40;

std::vector<double> shares_of(const TrainStage& stage) {
  std::vector<double> shares;
  for (const MixturePart& p : stage.mixture) shares.push_back(p.share);
  return shares;
}

std::string read_file(const std::string& path) {
  const FileSource source(path);
  std::string content = read_text(source, most_bytes);
  source.check_unchanged();
  return content;
}

JsonDocument parse_instruction(std::string_view line, const std::string& where) {
  try {
    return parse_json(line, where);
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    info.fix = R"(One object a line: {"prompt": "...", "response": "..."})";
    fail(std::move(info));
  }
}

/// The first sequence of a task, made to see whether it fits.
void try_first(const std::function<TrainingSequence(std::int64_t)>& sequence,
               const std::string& source, index_t length) {
  try {
    sequence(0);
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    info.where = fmt::format("source {}, length {}", source, length);
    info.fix = "Give a longer length";
    fail(std::move(info));
  }
}

/// A task of text/retrieval.hpp in ids of the language, of `length` ids.
RetrievalStream language_task(const std::string& name, const SyntheticLanguage& language,
                              const RetrievalOptions& options) {
  const PairIds facts = pair_ids(language.families()[0]);
  const PairIds passages = pair_ids(language.families()[1]);
  if (name == "copy") return copy_ids(passages, options);
  const std::vector<TokenId> filler = filler_text(language, options);
  if (name == "passkey") return passkey_ids(passages, filler, options);
  if (name == "key-value") return key_value_ids(facts, filler, options);
  const index_t pairs =
      std::clamp<index_t>(options.length / facts.pair_length() / 4, 1, facts.keys.size());
  return mqar_ids(facts, filler, options, pairs);
}

const TextTask& text_task(const std::string& name) {
  return name == "passkey-text" ? passkey_task : name == "json_kv" ? json_task : lines_task;
}

}  // namespace

TrainTexts read_train_texts(const TrainOptions& options, const std::vector<std::string>& files,
                            const AnyTokenizer& tokenizer) {
  EncodedDocuments out;
  for (const std::string& path : files) {
    const std::string content = read_file(path);
    encode_documents(tokenizer, split_documents(content, options.document_separator),
                     parse_bos_policy(options.bos), out);
  }
  return {.ids = std::move(out.tokens.ids), .cu_seqlens = std::move(out.cu_seqlens)};
}

TrainTexts read_instructions(const TrainOptions& options, const MixturePart& part,
                             const AnyTokenizer& tokenizer) {
  EncodedDocuments out;
  std::vector<float> weights;
  for (const std::string& path : part.texts) {
    const std::string content = read_file(path);
    std::int64_t number = 0;
    for (std::size_t at = 0; at < content.size();) {
      const std::size_t end = std::min(content.find('\n', at), content.size());
      const std::string_view line = strip(std::string_view(content).substr(at, end - at));
      at = end + 1;
      ++number;
      if (line.empty()) continue;
      const std::string where = fmt::format("{}:{}", path, number);
      const JsonDocument pair = parse_instruction(line, where);
      const std::size_t start = out.tokens.size();
      encode_documents(tokenizer, {pair.view().at("prompt").as_string()},
                       parse_bos_policy(options.bos), out);
      weights.resize(out.tokens.size(), static_cast<float>(part.prompt_weight));
      const std::size_t prompt_end = out.tokens.size();
      tokenizer.encode(pair.view().at("response").as_string(), out.tokens);
      if (out.tokens.size() == prompt_end || prompt_end == start) {
        fail({.kind = ErrorClass::config,
              .file = where,
              .field = prompt_end == start ? "prompt" : "response",
              .found = "no token",
              .expected = "a prompt and a response"});
      }
      weights.resize(out.tokens.size(), 1.0f);
      out.cu_seqlens.back() = std::ssize(out.tokens.ids);
    }
  }
  if (out.tokens.size() == 0) {
    fail({.kind = ErrorClass::config,
          .file = part.texts.front(),
          .found = "no line",
          .expected = R"(lines such as {"prompt": "...", "response": "..."})"});
  }
  return {.ids = std::move(out.tokens.ids),
          .cu_seqlens = std::move(out.cu_seqlens),
          .loss_weights = std::move(weights)};
}

TrainCorpus::TrainCorpus(const TrainOptions& options, const std::vector<TrainStage>& stages,
                         const AnyTokenizer* tokenizer)
    : tokenizer_(tokenizer), bos_(parse_bos_policy(options.bos)) {
  for (const TrainStage& stage : stages) {
    for (const MixturePart& part : stage.mixture) {
      const TrainSource& source = train_source(part.source);
      if (!source.reads_text && !source.needs_tokenizer) continue;
      if (tokenizer == nullptr || (source.reads_text && part.texts.empty())) {
        fail_usage("--text", "nothing", "a text: a part of the mixture is " + part.source,
                   source.reads_text ? "Or name files in the part: \"text\": [...]" : "");
      }
      if (!source.reads_text || texts_.contains(key(part))) continue;
      TrainTexts texts = part.source == "instructions"
                             ? read_instructions(options, part, *tokenizer)
                             : read_train_texts(options, part.texts, *tokenizer);
      if (part.source == "text-sorted") sort_documents(texts.ids, texts.cu_seqlens);
      texts_.emplace(key(part), std::move(texts));
    }
  }
}

std::string TrainCorpus::key(const MixturePart& part) {
  const bool sorted = part.source == "text-sorted";
  std::string key = part.source == "instructions" ? fmt::format("weight {}", part.prompt_weight)
                    : sorted                      ? "sorted"
                                                  : "";
  for (const std::string& file : part.texts) key += '\n' + file;
  return key;
}

std::uint64_t TrainCorpus::hash() const {
  Hasher hash;
  for (const auto& [key, texts] : texts_) {
    hash.bytes(std::as_bytes(std::span<const TokenId>(texts.ids)));
    hash.bytes(std::as_bytes(std::span<const std::int64_t>(texts.cu_seqlens)));
    hash.bytes(std::as_bytes(std::span<const float>(texts.loss_weights)));
  }
  return hash.digest();
}

StageData::StageData(const TrainStage& stage, const TrainCorpus& corpus, index_t vocab_size,
                     std::uint64_t seed, std::uint32_t stage_index)
    : stage_(stage),
      corpus_(corpus),
      vocab_size_(vocab_size),
      seed_(seed),
      stage_index_(stage_index),
      dealer_(shares_of(stage)) {
  for (const MixturePart& part : stage.mixture) parts_.push_back(make_part(part));
  steps_ = count_steps();
}

StageData::Part StageData::make_part(const MixturePart& part) {
  return train_source(part.source).reads_text ? text_part(part) : language_part(part);
}

StageData::Part StageData::text_part(const MixturePart& part) {
  const PackedDocuments documents = corpus_.texts(part).view();
  const Random random{.seed = seed_, .stream = 0x74657874 + stage_index_, .step = 0};
  if (part.source == "documents" || part.source == "instructions") {
    const auto sequences =
        std::make_shared<DocumentSequences>(documents, stage_.length, stage_.batch_tokens, random);
    return {.size = [sequences](std::int64_t i) { return sequences->size(i); },
            .sequence = [sequences](std::int64_t i) { return sequences->sequence(i); },
            .epoch = sequences->sequences()};
  }
  const TokenWindows windows(documents, stage_.length,
                             part.source == "text" ? WindowOrder::random : WindowOrder::given,
                             random, stage_.mask_documents);
  return {.size = [length = stage_.length](std::int64_t) { return length; },
          .sequence = [windows](std::int64_t i) { return windows.sequence(i); },
          .epoch = windows.windows()};
}

StageData::Part StageData::language_part(const MixturePart& part) {
  const auto options = [this](std::int64_t i) {
    // Documents of validation have a seed of their own: see docs/formats.md.
    const std::uint64_t seed = seed_ + (std::uint64_t{stage_index_} << 32);
    const auto instance = static_cast<std::uint32_t>(i);
    const Random random{.seed = seed, .stream = 0x64657074, .step = instance};
    return RetrievalOptions{.length = stage_.length + 1,
                            .depth = random.uniform(0),
                            .seed = seed,
                            .instance = instance};
  };
  const bool answers_alone = part.loss == "answers";
  const auto learn = [answers_alone](const RetrievalStream& s) {
    TrainingSequence sequence = next_token_sequence(s.tokens);
    if (answers_alone) learn_answers_alone(sequence, s.answers);
    return sequence;
  };
  Part out{.size = [length = stage_.length](std::int64_t) { return length; }};
  if (train_source(part.source).needs_tokenizer) {
    out.sequence = [=, this, &task = text_task(part.source)](std::int64_t i) {
      return learn(encode_task(*corpus_.tokenizer(), task, options(i), corpus_.bos()));
    };
    try_first(out.sequence, part.source, stage_.length);
    return out;
  }
  const auto language = std::make_shared<SyntheticLanguage>();
  if (language->vocab_size() > vocab_size_) {
    fail({.kind = ErrorClass::mismatch,
          .field = "vocab_size",
          .found = std::to_string(vocab_size_) + " ids of the model",
          .expected = "at least the " + std::to_string(language->vocab_size()) +
                      " of the synthetic language",
          .fix = "Train on --text, or on a model made by --preset without it"});
  }
  out.sequence = [=, name = part.source](std::int64_t i) {
    const RetrievalOptions o = options(i);
    if (name != "synthetic") return learn(language_task(name, *language, o));
    RetrievalStream s{.tokens = language->tokens(o.seed, o.instance, o.length)};
    if (answers_alone) s.answers = record_answers(*language, s.tokens);
    return learn(s);
  };
  if (part.source != "synthetic") try_first(out.sequence, part.source, stage_.length);
  return out;
}

std::int64_t StageData::count_steps() const {
  MixtureDealer dealer = dealer_;
  if (stage_.epochs > 0 && (parts_.size() != 1 || parts_[0].epoch == 0)) {
    fail({.kind = ErrorClass::usage,
          .field = "epochs",
          .found = parts_.size() == 1 ? "a mixture of " + stage_.mixture[0].source
                                      : "a mixture of " + std::to_string(parts_.size()) + " parts",
          .expected = "one part that has an end: text, text-sorted, documents or instructions",
          .fix = "Give tokens instead"});
  }
  std::int64_t steps = 0;
  const auto tokens = [&dealer] {
    std::int64_t sum = 0;
    for (const MixtureDealer::Dealt& d : dealer.dealt()) sum += d.tokens;
    return sum;
  };
  while ((stage_.epochs > 0 || tokens() < stage_.tokens) && !deal_step(dealer).empty()) ++steps;
  return steps;
}

std::vector<StageData::Turn> StageData::deal_step(MixtureDealer& dealer) const {
  std::vector<Turn> turns;
  const std::int64_t last = stage_.epochs > 0 ? stage_.epochs * parts_[0].epoch : -1;
  for (index_t tokens = 0;;) {
    const std::size_t part = dealer.next();
    const std::int64_t index = dealer.dealt()[part].sequences;
    const index_t size = parts_[part].size(index);
    if (index == last || (tokens > 0 && tokens + size > stage_.batch_tokens)) return turns;
    dealer.deal(part, size);
    tokens += size;
    turns.push_back({part, index});
  }
}

std::vector<TrainingSequence> StageData::next_batch(std::int64_t step) {
  std::vector<TrainingSequence> batch;
  const index_t window = stage_.windows.at(step, steps_, stage_.length);
  for (const Turn& turn : deal_step(dealer_)) {
    TrainingSequence s = parts_[turn.part].sequence(turn.index);
    if (window < stage_.length) cut_into_windows(s, window);
    set_positions(s, turn.part, turn.index);
    batch.push_back(std::move(s));
  }
  return batch;
}

void StageData::set_positions(TrainingSequence& s, std::size_t part, std::int64_t index) const {
  if (stage_.positions == "plain") return;
  const auto n = static_cast<std::int32_t>(s.tokens.size());
  std::vector<std::int32_t> cuts = {0, n};
  if (stage_.reset_positions && !s.cu_seqlens.empty()) cuts = s.cu_seqlens;
  for (std::size_t d = 0; d + 1 < cuts.size(); ++d) {
    const Random random{
        .seed = seed_ + (std::uint64_t{d} << 40),
        .stream = static_cast<std::uint32_t>(0x706f7300 + 256 * stage_index_ + part),
        .step = static_cast<std::uint32_t>(index)};
    const index_t count = cuts[d + 1] - cuts[d];
    const std::vector<std::int64_t> positions =
        stage_.positions == "pose"
            ? skipped_positions(count, stage_.position_range, stage_.position_chunks, random)
            : random_positions(count, stage_.position_range, random);
    s.positions.insert(s.positions.end(), positions.begin(), positions.end());
  }
}

void StageData::resume(const std::vector<std::int64_t>& dealt) {
  std::vector<MixtureDealer::Dealt> parts;
  for (std::size_t i = 0; i + 1 < dealt.size(); i += 2) parts.push_back({dealt[i], dealt[i + 1]});
  dealer_ = MixtureDealer(shares_of(stage_), std::move(parts));
}

std::vector<std::int64_t> StageData::dealt() const {
  std::vector<std::int64_t> out;
  for (const MixtureDealer::Dealt& d : dealer_.dealt()) {
    out.push_back(d.sequences);
    out.push_back(d.tokens);
  }
  return out;
}

}  // namespace cli
