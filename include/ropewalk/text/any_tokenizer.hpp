// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// AnyTokenizer: a tokenizer chosen at run time, opened from a file.

#include <string>
#include <utility>
#include <variant>

#include "ropewalk/io/file_name.hpp"
#include "ropewalk/text/byte_tokenizer.hpp"
#include "ropewalk/text/find_tokenizer.hpp"
#include "ropewalk/text/llama2c_tokenizer.hpp"
#include "ropewalk/text/sentencepiece.hpp"
#include "ropewalk/text/vocab_merges.hpp"
#include "ropewalk/text/vocab_tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// One of the tokenizers; itself one.
class AnyTokenizer {
 public:
  AnyTokenizer() = default;  ///< raw bytes
  template <class T>
  requires(!std::same_as<T, AnyTokenizer>)
      AnyTokenizer(T tokenizer)  // NOLINT(google-explicit-constructor): a tokenizer is one of any
      : tokenizer_(std::move(tokenizer)) {}

  /// Calls f with the tokenizer held.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), tokenizer_);
  }
  index_t vocab_size() const {
    return visit([](const auto& t) { return t.vocab_size(); });
  }
  std::optional<TokenId> bos_id() const {
    return visit([](const auto& t) { return t.bos_id(); });
  }
  void encode(std::string_view text, TokenStream& out) const {
    visit([&](const auto& t) { t.encode(text, out); });
  }
  std::string piece(TokenId id) const {
    return visit([id](const auto& t) { return std::string(t.piece(id)); });
  }
  std::string decode(std::span<const TokenId> ids) const {
    return visit([ids](const auto& t) { return t.decode(ids); });
  }

 private:
  std::variant<ByteTokenizer, Llama2cTokenizer, VocabTokenizer, BpeTokenizer> tokenizer_;
};
static_assert(Tokenizer<AnyTokenizer>);

/// What files do not say, or say otherwise than wanted.
struct TokenizerOptions {
  /// What <|endoftext|> and its like become where a text spells them; for tokenizer.json,
  /// vocab.json and sentencepiece models.
  SpecialTokens special_tokens = SpecialTokens::as_text;
  /// For a vocab.json alone: gpt2, qwen2, llama3, or a regular expression.
  std::string pattern = {};
};

/// Opens `bytes`, a tokenizer.json, a sentencepiece .model, a vocab.json with merges.txt beside it,
/// a `.vocab` file, a llama2.c `.bin` file, or the folder that holds one of the first four.
/// \throws Error(unsupported) for files of other kinds, Error(io) when the file cannot be read,
/// Error(usage) when a vocab.json needs a pattern or another kind was given one; as the readers.
inline AnyTokenizer open_tokenizer(const std::string& path, const TokenizerOptions& options = {}) {
  const auto no_pattern = [&] {
    if (options.pattern.empty()) return;
    fail({.kind = ErrorClass::usage,
          .file = path,
          .field = "tokenizer-pattern",
          .found = escaped(options.pattern),
          .expected = "no pattern: this file has its own, or needs none"});
  };
  if (path == "bytes") {
    no_pattern();
    return ByteTokenizer();
  }
  if (is_directory(path)) {
    const std::string found = find_tokenizer(path);
    if (!found.empty()) return open_tokenizer(found, options);
    fail({.kind = ErrorClass::io,
          .file = path,
          .found = "a folder without a tokenizer",
          .expected = "tokenizer.json, tokenizer.model, or vocab.json and merges.txt"});
  }
  const FileSource source(path);
  const auto ends = [&path](std::string_view suffix) { return path.ends_with(suffix); };
  const FileKind kind = file_kind(source);
  if (!ends(".vocab") && (ends(".json") || kind == FileKind::json)) {
    if (kind != FileKind::json) refuse_other_kinds(source, FileKind::json, "a tokenizer in JSON");
    const TokenizerLimits limits;
    const JsonDocument document =
        read_json(source, {.max_bytes = limits.file_bytes, .max_string = limits.token_bytes});
    const JsonView root = document.view();
    if (root.find("model") && root.at("model").value().if_object() != nullptr) {
      no_pattern();
      return read_tokenizer_json(root, options.special_tokens);
    }
    const Json::Object& o = root.as_object();
    if (o.values.empty() || o.values[0].if_number() == nullptr) {
      fail({.kind = ErrorClass::unsupported,
            .file = path,
            .found = "JSON without the key \"model\", which is no vocabulary either",
            .expected = "a tokenizer.json, or a vocab.json with merges.txt beside it"});
    }
    return open_vocab_merges(
        path, {.pattern = options.pattern, .special_tokens = options.special_tokens});
  }
  no_pattern();
  if (ends(".vocab")) return VocabTokenizer(source);
  if (ends(".bin")) return Llama2cTokenizer(source);
  if (ends(".model")) return read_sentencepiece(source, options.special_tokens);
  refuse_other_kinds(source, FileKind::unknown, "a tokenizer");
  fail({.kind = ErrorClass::unsupported,
        .file = path,
        .found = ends("merges.txt") ? "a merges.txt alone" : "a file of unknown kind",
        .expected = "tokenizer.json, a sentencepiece .model, vocab.json with merges.txt, a .vocab "
                    "file, a llama2.c tokenizer .bin, or `bytes`",
        .fix = ends("merges.txt") ? "Name the vocab.json beside it" : ""});
}

}  // namespace ropewalk::inline ROPEWALK_ABI
