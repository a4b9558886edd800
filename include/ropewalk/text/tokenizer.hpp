// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What a tokenizer is.

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Token ids, and of each how many bytes of the text it stands for: 0 for BOS and for a space put
/// before the text. The bytes of a text's tokens add up to its size.
struct TokenStream {
  std::vector<TokenId> ids = {};
  std::vector<std::uint32_t> bytes = {};

  void push(TokenId id, std::size_t num_bytes) {
    ids.push_back(id);
    bytes.push_back(static_cast<std::uint32_t>(num_bytes));
  }
  std::size_t size() const { return ids.size(); }
};

/// Turns text into ids and back. All members are const and may run on several threads.
///  - `vocab_size()`: ids are in [0, vocab_size).
///  - `bos_id()`: the id that starts a document, if there is one.
///  - `encode(text, out)`: appends the tokens of a whole text, without BOS. Ids that control the
///    model (BOS, EOS) never come out of text, however it is spelled.
///  - `piece(id)`: the bytes an id stands for inside a text; empty for control ids.
///  - `decode(ids)`: the text; a space that encode() put first is taken off again.
template <class T>
concept Tokenizer = requires(const T& t, std::string_view text, TokenStream& out, TokenId id,
                             std::span<const TokenId> ids) {
  { t.vocab_size() } -> std::same_as<index_t>;
  { t.bos_id() } -> std::same_as<std::optional<TokenId>>;
  { t.encode(text, out) } -> std::same_as<void>;
  { t.piece(id) } -> std::convertible_to<std::string_view>;
  { t.decode(ids) } -> std::same_as<std::string>;
};

/// \throws Error(usage) when `id` is not in [0, vocab_size).
inline void check_token_id(TokenId id, index_t vocab_size) {
  if (id >= 0 && id < vocab_size) return;
  fail({.kind = ErrorClass::usage,
        .field = "token id",
        .found = std::to_string(id),
        .expected = "an id below " + std::to_string(vocab_size)});
}

/// \throws Error(mismatch) when the tokenizer makes ids that the model does not have. `tokenizer`
/// and `model` are names for the message.
inline void check_vocab_size(index_t tokenizer_size, const std::string& tokenizer,
                             index_t model_size, const std::string& model) {
  if (tokenizer_size <= model_size) return;
  fail({.kind = ErrorClass::mismatch,
        .file = tokenizer,
        .field = "vocab_size",
        .found = std::to_string(tokenizer_size) + " tokens",
        .expected = "at most " + std::to_string(model_size) + ", as " + model + " has",
        .fix = "Give the tokenizer that the model was trained with"});
}

}  // namespace ropewalk::inline ROPEWALK_ABI
