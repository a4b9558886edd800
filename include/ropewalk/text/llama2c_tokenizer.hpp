// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The tokenizer files of llama2.c (tok512.bin, tokenizer.bin).

#include <bit>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>

#include "ropewalk/io/file_kind.hpp"
#include "ropewalk/io/utf8.hpp"
#include "ropewalk/text/bpe.hpp"
#include "ropewalk/text/scored_merges.hpp"
#include "ropewalk/text/tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// "<0x0A>"
inline std::string byte_piece(unsigned byte) {
  constexpr char hex[] = "0123456789ABCDEF";
  return std::string("<0x") + hex[(byte >> 4) & 15] + hex[byte & 15] + ">";
}

}  // namespace detail

/// Sentencepiece BPE as llama2.c runs it: ids 0 unknown, 1 BOS, 2 EOS, 3 to 258 the 256 bytes, then
/// pieces of UTF-8 with scores. A space is put before a text that is not empty; a character that is
/// no piece becomes its bytes, so any bytes round-trip. Source: karpathy/llama2.c, run.c
/// (build_tokenizer, encode, decode).
class Llama2cTokenizer {
 public:
  /// File: int32 longest piece; then per token float32 score, int32 length, bytes; to the end.
  /// \throws Error(format) with the byte offset, Error(limit) for pieces over 1 KiB, files over
  /// 64 MiB, or more than 2^23 ways to make a piece of two others.
  template <ByteSource S>
  explicit Llama2cTokenizer(const S& source) {
    refuse_other_kinds(source, FileKind::unknown, "a llama2.c tokenizer");
    const std::string data = read_text(source, max_scored_file);
    BpeVocabulary v{.name = source.name()};
    std::vector<float> scores;
    std::unordered_set<std::string> seen;
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
    constexpr auto max_piece = static_cast<std::int32_t>(max_scored_piece);
    if (longest < 1 || longest > max_piece) {
      refuse(longest < 1 ? ErrorClass::format : ErrorClass::limit, 0, std::to_string(longest),
             "a longest piece of 1 to " + std::to_string(max_piece) + " bytes");
    }
    while (at < data.size()) {
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
      } else if (find_invalid_utf8(pieces_.back()) != std::string_view::npos) {
        refuse(ErrorClass::format, start + 8, escaped(pieces_.back()), "valid UTF-8");
      } else if (!seen.insert(pieces_.back()).second) {
        refuse(ErrorClass::format, start + 8, "the piece " + escaped(pieces_.back()) + " again",
               "each piece once");
      }
      v.pieces.push_back(id < first_byte + 256 ? "" : pieces_.back());
      scores.push_back(score);
    }
    if (pieces_.size() < first_byte + 256) {
      refuse(ErrorClass::format, at, std::to_string(pieces_.size()) + " tokens",
             "at least 3 control tokens and 256 bytes");
    }
    for (TokenId byte = 0; byte < 256; ++byte) v.fallback.push_back(first_byte + byte);
    v.merges = merges_of_scores(v.pieces, scores, v.name);
    model_ = std::make_shared<const BpeModel>(std::move(v));
  }

  index_t vocab_size() const { return static_cast<index_t>(pieces_.size()); }
  std::optional<TokenId> bos_id() const { return 1; }

  /// \throws Error(limit) for a text of 4 GiB or more.
  void encode(std::string_view text, TokenStream& out) const {
    if (text.empty()) return;
    check_text_size(text.size() + 1);
    const std::string spaced = " " + std::string(text);
    BpeCache cache(spaced.size());
    std::size_t done = 1;
    model_->encode(spaced, cache, [&](TokenId id, std::size_t end) {
      out.push(id, end - done);
      done = end;
    });
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

  std::vector<std::string> pieces_;  // by id: the bytes it stands for
  std::shared_ptr<const BpeModel> model_;
};
static_assert(Tokenizer<Llama2cTokenizer>);

}  // namespace ropewalk::inline ROPEWALK_ABI
