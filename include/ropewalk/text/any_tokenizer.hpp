// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// AnyTokenizer: a tokenizer chosen at run time, opened from a file.

#include <string>
#include <utility>
#include <variant>

#include "ropewalk/text/byte_tokenizer.hpp"
#include "ropewalk/text/llama2c_tokenizer.hpp"
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
  std::variant<ByteTokenizer, Llama2cTokenizer, VocabTokenizer> tokenizer_;
};
static_assert(Tokenizer<AnyTokenizer>);

/// Opens `bytes`, a `.vocab` file, or a llama2.c `.bin` file.
/// \throws Error(unsupported) for tokenizer.json and sentencepiece models, Error(io) when the file
/// cannot be read; as the tokenizers' constructors.
inline AnyTokenizer open_tokenizer(const std::string& path) {
  if (path == "bytes") return ByteTokenizer();
  const FileSource source(path);
  const auto ends = [&path](std::string_view suffix) { return path.ends_with(suffix); };
  if (ends(".vocab")) return VocabTokenizer(source);
  const bool json = ends(".json") || file_kind(source) == FileKind::json;
  if (!json && ends(".bin")) return Llama2cTokenizer(source);
  if (!json && !ends(".model")) {
    refuse_other_kinds(source, FileKind::unknown, "a tokenizer");
  }
  fail({.kind = ErrorClass::unsupported,
        .file = path,
        .found = json             ? "a tokenizer in JSON"
                 : ends(".model") ? "a sentencepiece model"
                                  : "a file of unknown kind",
        .expected = "a .vocab file, a llama2.c tokenizer .bin, or `bytes`",
        .fix = "Make token ids elsewhere and give them as a .u16 or .u32 file"});
}

}  // namespace ropewalk::inline ROPEWALK_ABI
