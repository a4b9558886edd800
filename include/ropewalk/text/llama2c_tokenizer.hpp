// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The tokenizer files of llama2.c (tok512.bin, tokenizer.bin).

#include <bit>
#include <string>
#include <utility>

#include "ropewalk/io/file_kind.hpp"
#include "ropewalk/text/score_merges.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// "<0x0A>"
inline std::string byte_piece(unsigned byte) {
  constexpr char hex[] = "0123456789ABCDEF";
  return std::string("<0x") + hex[(byte >> 4) & 15] + hex[byte & 15] + ">";
}

}  // namespace detail

/// Sentencepiece BPE as llama2.c runs it: ids 0 unknown, 1 BOS, 2 EOS, 3 to 258 the 256 bytes, then
/// pieces with scores. A space is put before a text that is not empty; a character that is no piece
/// becomes its bytes, so any bytes round-trip.
/// Source: karpathy/llama2.c, run.c (build_tokenizer, encode, decode).
class Llama2cTokenizer {
 public:
  /// File: int32 longest piece; then per token float32 score, int32 length, bytes; to the end.
  /// \throws Error(format) with the byte offset, Error(limit) for pieces over 64 KiB or more than
  /// 2^22 of them.
  template <ByteSource S>
  explicit Llama2cTokenizer(const S& source) {
    refuse_other_kinds(source, FileKind::unknown, "a llama2.c tokenizer");
    constexpr std::uint64_t max_file = std::uint64_t{512} << 20;
    const std::string data = read_text(source, max_file);
    std::size_t at = 0;
    const auto refuse = [&](ErrorClass kind, std::size_t offset, std::string found,
                            std::string expected) {
      fail({.kind = kind,
            .file = source.name(),
            .where = "byte " + std::to_string(offset),
            .field = "token " + std::to_string(pieces_.size()),
            .found = std::move(found),
            .expected = std::move(expected),
            .fix = "Give a llama2.c tokenizer file: this is none, or it is damaged"});
    };
    const auto take = [&](auto& value, const char* what) {
      if (data.size() - at < sizeof value) {
        refuse(ErrorClass::format, at, "the end of the file", std::string(what) + " of 4 bytes");
      }
      std::memcpy(&value, data.data() + at, sizeof value);
      at += sizeof value;
    };
    std::int32_t longest = 0;
    take(longest, "the length of the longest piece");
    if (longest < 1 || longest > max_piece) {
      refuse(longest < 1 ? ErrorClass::format : ErrorClass::limit, 0, std::to_string(longest),
             "a longest piece of 1 to " + std::to_string(max_piece) + " bytes");
    }
    while (at < data.size()) {
      if (pieces_.size() == max_tokens) {
        refuse(ErrorClass::limit, at, "more tokens", "at most " + std::to_string(max_tokens));
      }
      float score = 0;
      std::int32_t length = 0;
      const std::size_t start = at;
      take(score, "a score");
      take(length, "a length");
      if ((std::bit_cast<std::uint32_t>(score) & 0x7f800000u) == 0x7f800000u) {
        refuse(ErrorClass::format, start, "a score that is not finite", "a finite score");
      }
      if (length < 1 || length > longest) {
        refuse(ErrorClass::format, start + 4, "a piece of " + std::to_string(length) + " bytes",
               "1 to " + std::to_string(longest));
      }
      if (data.size() - at < static_cast<std::size_t>(length)) {
        refuse(ErrorClass::format, at, std::to_string(data.size() - at) + " bytes to the end",
               "a piece of " + std::to_string(length) + " bytes");
      }
      const auto id = static_cast<TokenId>(pieces_.size());
      pieces_.emplace_back(data, at, static_cast<std::size_t>(length));
      at += static_cast<std::size_t>(length);
      if (id >= first_byte && id < first_byte + 256) {
        const auto byte = static_cast<unsigned>(id - first_byte);
        if (pieces_.back() != detail::byte_piece(byte)) {
          refuse(ErrorClass::format, start + 8, escaped(pieces_.back()),
                 "the byte piece " + detail::byte_piece(byte));
        }
        pieces_.back() = std::string(1, static_cast<char>(byte));
      } else if (id < first_byte) {
        pieces_.back().clear();  // control ids stand for no text
      } else if (!scored_.add(pieces_.back(), id, score)) {
        refuse(ErrorClass::format, start + 8, "the piece " + escaped(pieces_.back()) + " again",
               "each piece once");
      }
    }
    if (pieces_.size() < first_byte + 256) {
      refuse(ErrorClass::format, at, std::to_string(pieces_.size()) + " tokens",
             "at least 3 control tokens and 256 bytes");
    }
  }

  index_t vocab_size() const { return static_cast<index_t>(pieces_.size()); }
  std::optional<TokenId> bos_id() const { return 1; }

  void encode(std::string_view text, TokenStream& out) const {
    if (text.empty()) return;
    const std::string spaced = " " + std::string(text);
    std::vector<TextToken> tokens;
    encode_by_scores(
        spaced, scored_,
        [&](std::size_t begin, std::size_t size, std::vector<TextToken>& to) {
          for (std::size_t i = begin; i < begin + size; ++i) {
            to.push_back({static_cast<unsigned char>(spaced[i]) + first_byte, i, 1});
          }
        },
        tokens);
    for (const TextToken& t : tokens) out.push(t.id, t.begin == 0 ? t.size - 1 : t.size);
  }
  std::string_view piece(TokenId id) const {
    check_token_id(id, vocab_size());
    return pieces_[static_cast<std::size_t>(id)];
  }
  std::string decode(std::span<const TokenId> ids) const {
    std::string out;
    bool at_start = true;
    for (const TokenId id : ids) {
      std::string_view p = piece(id);
      if (at_start && p.substr(0, 1) == " ") p.remove_prefix(1);
      at_start = id == 1;
      out += p;
    }
    return out;
  }

 private:
  static constexpr TokenId first_byte = 3;
  static constexpr std::int32_t max_piece = 1 << 16;
  static constexpr std::size_t max_tokens = std::size_t{1} << 22;

  std::vector<std::string> pieces_;  // by id: the bytes it stands for
  ScoredPieces scored_;
};
static_assert(Tokenizer<Llama2cTokenizer>);

}  // namespace ropewalk::inline ROPEWALK_ABI
