// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// ByteTokenizer: every byte is a token.

#include <string>

#include "ropewalk/text/tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// 256 ids, the values of the bytes; no BOS. Any bytes round-trip.
class ByteTokenizer {
 public:
  index_t vocab_size() const { return 256; }
  std::optional<TokenId> bos_id() const { return std::nullopt; }
  void encode(std::string_view text, TokenStream& out) const {
    for (const char c : text) out.push(static_cast<unsigned char>(c), 1);
  }
  std::string piece(TokenId id) const {
    check_token_id(id, vocab_size());
    return std::string(1, static_cast<char>(id));
  }
  std::string decode(std::span<const TokenId> ids) const {
    std::string out;
    for (const TokenId id : ids) out += piece(id);
    return out;
  }
};
static_assert(Tokenizer<ByteTokenizer>);

}  // namespace ropewalk::inline ROPEWALK_ABI
