// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// BpeTokenizer: added tokens, normalisation, pre-tokenization and byte-pair encoding in a row. The
/// readers of tokenizer.json, vocab.json and sentencepiece models make one.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/text/added_tokens.hpp"
#include "ropewalk/text/bpe.hpp"
#include "ropewalk/text/normalizer.hpp"
#include "ropewalk/text/pre_tokenizer.hpp"
#include "ropewalk/text/tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What a BpeTokenizer is made of.
struct BpeTokenizerParts {
  BpeVocabulary vocabulary = {};
  std::vector<AddedToken> added_tokens = {};
  std::vector<AddedToken> fixed_pieces = {};  ///< found in the normalised text, as they are
  std::vector<NormalizerStep> normalizers = {};
  std::vector<PreTokenizerStep> pre_tokenizers = {};
  SpecialTokens special_tokens = SpecialTokens::as_text;
  std::vector<std::string> shown = {};  ///< by id: what stands for it in a decoded text
  std::vector<bool> present = {};       ///< by id: false for holes, which have no piece
  std::vector<bool> control = {};  ///< by id: no text of its own, unless special tokens are ids
  std::size_t strip_spaces = 0;    ///< spaces that decode takes off the start of a text
  std::optional<TokenId> bos = {};
};

/// A tokenizer of byte-pair encoding. Copies share their tables.
class BpeTokenizer {
 public:
  explicit BpeTokenizer(BpeTokenizerParts parts) {
    auto t = std::make_shared<Tables>();
    for (const AddedToken& token : parts.added_tokens) {
      if (!token.normalized) {
        t->raw.add(token, token.content);
        continue;
      }
      AlignedText buffers[2];
      t->normalized.add(token,
                        normalize(parts.normalizers, {token.content, nullptr, 0}, buffers).text);
    }
    for (const AddedToken& token : parts.fixed_pieces) t->normalized.add(token, token.content);
    t->model = BpeModel(std::move(parts.vocabulary));
    parts.vocabulary = {};
    t->parts = std::move(parts);
    tables_ = std::move(t);
  }

  index_t vocab_size() const { return static_cast<index_t>(tables_->parts.shown.size()); }
  std::optional<TokenId> bos_id() const { return tables_->parts.bos; }

  /// Tokens of a text of less than 4 GiB. What steps of the tokenizer drop from the text is counted
  /// with the next token, at the end with the last one; a text that leaves no token counts nothing.
  /// \throws Error(limit) for a longer text, or a text on which a pattern of the tokenizer needs
  /// more than it may; Error(mismatch) for a character that the vocabulary has no way to write.
  void encode(std::string_view text, TokenStream& out) const {
    check_text_size(text.size());
    Output output{out, 0, out.size()};
    BpeCache cache(text.size());
    const bool valid = valid_utf8_end(text, 0) == text.size();
    const TextView whole{text, nullptr, 0};
    const BpeTokenizerParts& parts = tables_->parts;
    const auto token = [&](const AddedToken& t, std::size_t end) { output.push(t.id, end); };
    tables_->raw.split(
        text, parts.special_tokens,
        [&](std::size_t begin, std::size_t end) {
          AlignedText buffers[2];
          const TextView part = normalize(parts.normalizers, whole.sub(begin, end), buffers);
          tables_->normalized.split(
              part.text, parts.special_tokens,
              [&](std::size_t b, std::size_t e) {
                encode_text(part.sub(b, e), valid, cache, output);
              },
              [&](const AddedToken& t, std::size_t, std::size_t e) {
                token(t, part.origin_at(e));
              });
        },
        [&](const AddedToken& t, std::size_t, std::size_t end) { token(t, end); });
    output.finish(text.size());
  }

  /// \throws Error(usage) for an id beyond the vocabulary or in one of its holes.
  std::string_view piece(TokenId id) const {
    check_token_id(id, vocab_size());
    const BpeTokenizerParts& parts = tables_->parts;
    const auto i = static_cast<std::size_t>(id);
    if (!parts.present[i]) {
      fail({.kind = ErrorClass::usage,
            .field = "token id",
            .found = std::to_string(id) + ", which the vocabulary leaves out",
            .expected = "an id of the vocabulary"});
    }
    if (parts.control[i] && parts.special_tokens == SpecialTokens::as_text) return {};
    return parts.shown[i];
  }
  std::string decode(std::span<const TokenId> ids) const {
    std::string out;
    for (const TokenId id : ids) out += piece(id);
    std::size_t spaces = 0;
    while (spaces < tables_->parts.strip_spaces && spaces < out.size() && out[spaces] == ' ') {
      ++spaces;
    }
    return out.substr(spaces);
  }

 private:
  struct Tables {
    BpeTokenizerParts parts;
    BpeModel model;
    AddedTokens raw, normalized;
  };
  /// Appends tokens by where they end in the original text.
  struct Output {
    TokenStream& stream;
    std::size_t done;
    std::size_t first;
    void push(TokenId id, std::size_t end) {
      stream.push(id, end - done);
      done = end;
    }
    void finish(std::size_t size) {
      if (stream.size() > first) stream.bytes.back() += static_cast<std::uint32_t>(size - done);
    }
  };

  void encode_text(const TextView& text, bool valid, BpeCache& cache, Output& output) const {
    pre_tokenize(tables_->parts.pre_tokenizers, 0, text, valid, [&](const TextView& word) {
      tables_->model.encode(word.text, cache, [&](TokenId id, std::size_t end) {
        output.push(id, word.origin_at(end));
      });
    });
  }

  std::shared_ptr<const Tables> tables_;
};
static_assert(Tokenizer<BpeTokenizer>);

}  // namespace ropewalk::inline ROPEWALK_ABI
