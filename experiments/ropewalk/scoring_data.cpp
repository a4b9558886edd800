// SPDX-License-Identifier: Apache-2.0
#include "scoring_data.hpp"

#include <algorithm>

#include "ropewalk/eval/words.hpp"
#include "ropewalk/text/documents.hpp"
#include "ropewalk/text/retrieval.hpp"
#include "ropewalk/text/synthetic_floor.hpp"
#include "ropewalk/text/token_file.hpp"

namespace cli {

namespace {

constexpr std::size_t everything = static_cast<std::size_t>(-1);
constexpr std::int64_t default_documents = 16;  // of the synthetic language

/// Encodes texts until `enough` tokens are there. Files are read whole: a document may be one.
ScoringText encode_texts(const DataOptions& options, const AnyTokenizer& tokenizer, BosPolicy bos,
                         std::size_t enough) {
  EncodedDocuments out;
  ScoringText text;
  for (const std::string& path : options.texts) {
    const FileSource source(path);
    const std::string content = read_text(source, std::uint64_t{1} << 40);
    source.check_unchanged();
    for (const std::string_view document : split_documents(content, options.document_separator)) {
      if (out.tokens.size() >= enough) break;
      encode_documents(tokenizer, {document}, bos, out);
      text.words.push_back(count_words(document));
    }
  }
  text.ids = std::move(out.tokens.ids);
  text.bytes = std::move(out.tokens.bytes);
  text.cu_seqlens = std::move(out.cu_seqlens);
  return text;
}

/// Keeps whole runs of window_tokens ids. Documents are joined: where they begin is forgotten.
void cut_into_runs(const DataOptions& options, ScoringData& data) {
  ScoringText& text = data.runs;
  auto count = static_cast<std::int64_t>(text.ids.size()) / data.window_tokens;
  if (count == 0) {
    fail_usage(options.tokens.empty() ? "--text" : "--tokens",
               std::to_string(text.ids.size()) + " tokens",
               "at least one window of " + std::to_string(data.window_tokens),
               "Give a longer text or shorter lengths");
  }
  if (options.windows) count = std::min(count, *options.windows);
  for (const std::int64_t words : text.words) data.words += words;
  for (const std::uint32_t bytes : text.bytes) data.text_bytes += bytes;
  const auto used = static_cast<std::size_t>(count * data.window_tokens);
  text.ids.resize(used);
  if (!text.bytes.empty()) text.bytes.resize(used);
  text.cu_seqlens.clear();
  text.words.clear();
}

/// Documents of the synthetic language, a window each, and what an ideal predictor loses on them.
void make_documents(const DataOptions& options, const LoadedModel& model, ScoringData& data) {
  const SyntheticLanguage language;
  if (language.vocab_size() > model.config().vocab_size) {
    fail({.kind = ErrorClass::mismatch,
          .field = "vocab_size",
          .found = std::to_string(model.config().vocab_size) + " ids of " + model.path,
          .expected = "at least the " + std::to_string(language.vocab_size()) +
                      " of the synthetic language",
          .fix = "Give --text or --tokens"});
  }
  const auto length = static_cast<std::size_t>(data.window_tokens);
  const std::int64_t count = options.windows.value_or(default_documents);
  data.runs.ids.resize(checked_mul(static_cast<std::size_t>(count), length, "--windows"));
  KnownText& known = data.runs.known;
  known.window_tokens = data.window_tokens;
  known.floor.resize(data.runs.ids.size());
  for (std::int64_t d = 0; d < count; ++d) {
    const std::size_t first = static_cast<std::size_t>(d) * length;
    const std::span<TokenId> ids = std::span(data.runs.ids).subspan(first, length);
    language.tokens(validation_seed, static_cast<std::uint32_t>(d), ids);
    floor_nll(language, ids, whole_past, std::span(known.floor).subspan(first, length));
    known.answers.push_back(record_answers(language, ids));
  }
}

std::uint64_t hash_of(const ScoringData& data, const DataNeeds& needs) {
  Hasher hash;
  if (needs.prefix) {
    hash.value(static_cast<std::int64_t>(data.window_tokens));
    hash.bytes(std::as_bytes(std::span<const TokenId>(data.runs.ids)));
    hash.value(data.words).value(data.text_bytes);
    hash.bytes(std::as_bytes(std::span<const std::uint32_t>(data.runs.bytes)));
  }
  if (needs.others) {
    const ScoringText& text = data.whole;
    hash.value(static_cast<std::int64_t>(text.prefix_id ? *text.prefix_id : no_prefix));
    hash.value(data.window_limit.value_or(0));
    hash.bytes(std::as_bytes(std::span<const TokenId>(text.ids)));
    hash.bytes(std::as_bytes(std::span<const std::uint32_t>(text.bytes)));
    hash.bytes(std::as_bytes(std::span<const std::int64_t>(text.cu_seqlens)));
    hash.bytes(std::as_bytes(std::span<const std::int64_t>(text.words)));
  }
  return hash.digest();
}

}  // namespace

void add_data_options(Options& options, DataOptions& out) {
  options.texts("--text", "FILE", out.texts, "Texts, UTF-8; one file is one document");
  options.text("--tokens", "FILE", out.tokens, "Token ids instead: .u16 or .u32, little-endian");
  options.text("--document-separator", "STRING", out.document_separator,
               "Cut texts into documents here and strip each");
  options.choice("--bos", {"auto", "yes", "no"}, out.bos, "BOS before each document");
  options.flag("--synthetic", out.synthetic,
               "Documents of the synthetic language instead, and what an ideal predictor loses");
  options.size("--window-tokens", 2, out.window_tokens,
               "Cut the ids into runs of N; N ids give N - 1 losses [longest length + 1]");
  options.size("--windows", 1, out.windows, "Use at most N windows [all]");
}

index_t ScoringData::windows() const {
  return window_tokens < 1 ? 0 : static_cast<index_t>(runs.ids.size()) / window_tokens;
}

ScoringData load_data(const DataOptions& options, const LoadedModel& model,
                      const DataNeeds& needs) {
  ScoringData data;
  data.window_limit = options.windows;
  data.window_tokens = static_cast<index_t>(options.window_tokens.value_or(needs.longest + 1));
  if (data.window_tokens <= needs.longest) {
    fail_usage("--window-tokens", std::to_string(data.window_tokens),
               "more than the longest length, " + std::to_string(needs.longest),
               "A window of N tokens gives N - 1 losses");
  }
  const BosPolicy bos = parse_bos_policy(options.bos);
  if (options.synthetic) {
    make_documents(options, model, data);
  } else if (!options.tokens.empty()) {
    std::vector<TokenId> ids = read_token_file(options.tokens, model.config().vocab_size).ids;
    if (needs.others) {
      data.whole.ids = ids;
      if (!model.tokenizer_path.empty() && bos != BosPolicy::no) {
        data.whole.prefix_id = model.open_tokenizer().bos_id();
      }
    }
    if (needs.prefix) data.runs.ids = std::move(ids);
  } else {
    const AnyTokenizer tokenizer = model.open_tokenizer();
    std::size_t enough = everything;
    if (options.windows) {
      enough = checked_mul(static_cast<std::size_t>(*options.windows),
                           static_cast<std::size_t>(data.window_tokens), "--windows");
    }
    if (needs.prefix) data.runs = encode_texts(options, tokenizer, bos, enough);
    if (needs.others) {
      data.whole = encode_texts(options, tokenizer, BosPolicy::no, everything);
      if (bos != BosPolicy::no) data.whole.prefix_id = tokenizer.bos_id();
      if (data.whole.ids.empty()) {
        fail_usage("--text", "0 tokens", "a text", "Give a longer text");
      }
    }
  }
  if (needs.prefix) cut_into_runs(options, data);
  data.hash = hash_of(data, needs);
  return data;
}

}  // namespace cli
