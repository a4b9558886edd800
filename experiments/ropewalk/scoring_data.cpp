// SPDX-License-Identifier: Apache-2.0
#include "scoring_data.hpp"

#include "ropewalk/text/documents.hpp"
#include "ropewalk/text/token_file.hpp"

namespace cli {

namespace {

/// Encodes texts until `enough` tokens are there. Files are read whole: a document may be one.
TokenStream encode_texts(const DataOptions& options, const AnyTokenizer& tokenizer,
                         std::size_t enough) {
  const BosPolicy bos = parse_bos_policy(options.bos);
  EncodedDocuments out;
  for (const std::string& path : options.texts) {
    const FileSource source(path);
    const std::string text = read_text(source, std::uint64_t{1} << 40);
    source.check_unchanged();
    for (const std::string_view document : split_documents(text, options.document_separator)) {
      if (out.tokens.size() >= enough) return std::move(out.tokens);
      encode_documents(tokenizer, {document}, bos, out);
    }
  }
  return std::move(out.tokens);
}

}  // namespace

void add_data_options(Options& options, DataOptions& out) {
  options.texts("--text", "FILE", out.texts, "Texts, UTF-8; one file is one document");
  options.text("--tokens", "FILE", out.tokens, "Token ids instead: .u16 or .u32, little-endian");
  options.text("--document-separator", "STRING", out.document_separator,
               "Cut texts into documents here and strip each");
  options.choice("--bos", {"auto", "yes", "no"}, out.bos, "BOS before each document");
  options.size("--window-tokens", 2, out.window_tokens,
               "Cut the ids into runs of N; N ids give N - 1 losses [longest length + 1]");
  options.size("--windows", 1, out.windows, "Use at most N windows [all]");
}

std::int64_t ScoringData::text_bytes(index_t length) const {
  std::int64_t sum = 0;
  for (std::size_t w = 0; w < bytes.size(); w += static_cast<std::size_t>(window_tokens)) {
    for (index_t t = 1; t <= length; ++t) sum += bytes[w + static_cast<std::size_t>(t)];
  }
  return sum;
}

ScoringData load_data(const DataOptions& options, const LoadedModel& model, index_t longest) {
  ScoringData data;
  data.window_tokens = static_cast<index_t>(options.window_tokens.value_or(longest + 1));
  if (data.window_tokens <= longest) {
    fail_usage("--window-tokens", std::to_string(data.window_tokens),
               "more than the longest length, " + std::to_string(longest),
               "A window of N tokens gives N - 1 losses");
  }
  if (!options.tokens.empty()) {
    data.ids = read_token_file(options.tokens, model.llama.config.vocab_size).ids;
  } else {
    std::size_t enough = static_cast<std::size_t>(-1);
    if (options.windows) {
      enough = checked_mul(static_cast<std::size_t>(*options.windows),
                           static_cast<std::size_t>(data.window_tokens), "--windows");
    }
    TokenStream stream = encode_texts(options, model.open_tokenizer(), enough);
    data.ids = std::move(stream.ids);
    data.bytes = std::move(stream.bytes);
  }
  auto count = static_cast<std::int64_t>(data.ids.size()) / data.window_tokens;
  if (count == 0) {
    fail_usage(options.tokens.empty() ? "--text" : "--tokens",
               std::to_string(data.ids.size()) + " tokens",
               "at least one window of " + std::to_string(data.window_tokens),
               "Give a longer text or shorter lengths");
  }
  if (options.windows) count = std::min(count, *options.windows);
  const auto used = static_cast<std::size_t>(count * data.window_tokens);
  data.ids.resize(used);
  if (!data.bytes.empty()) data.bytes.resize(used);
  Hasher hash;
  hash.value(static_cast<std::int64_t>(data.window_tokens));
  hash.bytes(std::as_bytes(std::span<const TokenId>(data.ids)));
  data.hash = hash.digest();
  return data;
}

}  // namespace cli
