// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// `.vocab` files of sentencepiece: one piece a line with its score.

#include <cmath>
#include <string>

#include "ropewalk/core/number_text.hpp"
#include "ropewalk/io/file_kind.hpp"
#include "ropewalk/text/llama2c_tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Sentencepiece BPE from `piece<TAB>score` lines; the id is the line's number from 0. In pieces
/// U+2581 is the space. `<unk>`, `<s>`, `</s>`, `<pad>` and `<0xNN>` are control and byte pieces;
/// text never becomes the former. No space is put before the text: the file does not say whether
/// the model was trained with one, and the character models that ship such files were not.
/// A character that is no piece becomes its bytes if all 256 are there, else `<unk>`; newline,
/// carriage return and tab that are no pieces become a space first, as sentencepiece's usual
/// normalisation does.
class VocabTokenizer {
 public:
  /// \throws Error(format) with the line, Error(limit), Error(unsupported) for unigram models
  /// (scores of longer pieces that are not whole numbers).
  template <ByteSource S>
  explicit VocabTokenizer(const S& source) : name_(source.name()) {
    const FileKind kind = file_kind(source);
    if (kind == FileKind::empty || kind == FileKind::git_lfs_pointer || kind == FileKind::html) {
      refuse_other_kinds(source, FileKind::unknown, "a .vocab file");
    }
    const std::string data = read_text(source, std::uint64_t{512} << 20);
    std::size_t bytes_found = 0;
    for (std::size_t at = 0, line = 1; at < data.size(); ++line) {
      std::size_t end = data.find('\n', at);
      if (end == std::string::npos) end = data.size();
      add_line(std::string_view(data).substr(at, end - at), line, bytes_found);
      at = end + 1;
    }
    if (bytes_found != 256) byte_ids_.clear();
  }

  index_t vocab_size() const { return static_cast<index_t>(pieces_.size()); }
  std::optional<TokenId> bos_id() const { return bos_; }

  /// \throws Error(mismatch) when a character is no piece and the vocabulary has neither bytes nor
  /// <unk>.
  void encode(std::string_view text, TokenStream& out) const {
    std::string spaced;  // white space as in the pieces
    spaced.reserve(text.size() + text.size() / 2);
    for (const char c : text) {
      const bool space = c == ' ' || ((c == '\n' || c == '\r' || c == '\t') &&
                                      scored_.find(std::string_view(&c, 1)) == nullptr);
      spaced += space ? std::string_view(meta_space) : std::string_view(&c, 1);
    }
    std::vector<TextToken> tokens;
    encode_by_scores(
        spaced, scored_,
        [&](std::size_t begin, std::size_t size, std::vector<TextToken>& to) {
          const bool space = std::string_view(spaced).substr(begin, size) == meta_space;
          if (!byte_ids_.empty()) {
            if (space) {
              to.push_back({byte_ids_[' '], begin, size});
              return;
            }
            for (std::size_t i = begin; i < begin + size; ++i) {
              to.push_back({byte_ids_[static_cast<unsigned char>(spaced[i])], i, 1});
            }
          } else if (unknown_) {
            to.push_back({*unknown_, begin, size});
          } else {
            fail({.kind = ErrorClass::mismatch,
                  .file = name_,
                  .found = "the character " + escaped(spaced.substr(begin, size)) + " in the text",
                  .expected = "a vocabulary with this character, all bytes, or <unk>"});
          }
        },
        tokens);
    // Back to sizes in the text: the k-th character of both is the same one.
    std::size_t from = 0;
    for (const TextToken& t : tokens) {
      std::size_t size = 0;
      for (std::size_t at = t.begin; at < t.begin + t.size; ++size) {
        const bool space = std::string_view(spaced).substr(at, 3) == meta_space &&
                           text.substr(from + size, 3) != meta_space;
        if (space) {
          at += 3;
        } else {
          ++at;
        }
      }
      from += size;
      out.push(t.id, size);
    }
  }
  std::string_view piece(TokenId id) const {
    check_token_id(id, vocab_size());
    return pieces_[static_cast<std::size_t>(id)];
  }
  std::string decode(std::span<const TokenId> ids) const {
    std::string out;
    for (const TokenId id : ids) out += piece(id);
    return out;
  }

 private:
  static constexpr std::string_view meta_space = "\xe2\x96\x81";  // U+2581

  void add_line(std::string_view line, std::size_t number, std::size_t& bytes_found) {
    const auto refuse = [&](ErrorClass kind, std::string found, std::string expected,
                            std::string fix = {}) {
      fail({.kind = kind,
            .file = name_,
            .where = "line " + std::to_string(number),
            .found = std::move(found),
            .expected = std::move(expected),
            .fix = std::move(fix)});
    };
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const std::size_t tab = line.rfind('\t');
    if (tab == std::string_view::npos || tab == 0) {
      refuse(ErrorClass::format, escaped(line), "piece, tab, score");
    }
    const std::string_view stored = line.substr(0, tab);
    const auto score = parse_real(line.substr(tab + 1));
    if (!score) refuse(ErrorClass::format, escaped(line.substr(tab + 1)), "a finite score");
    if (stored.size() > (1 << 16)) {
      refuse(ErrorClass::limit, "a piece of " + std::to_string(stored.size()) + " bytes",
             "at most 65536");
    }
    if (find_invalid_utf8(stored) != std::string_view::npos) {
      refuse(ErrorClass::format, escaped(stored), "valid UTF-8");
    }
    if (pieces_.size() == (std::size_t{1} << 22)) {
      refuse(ErrorClass::limit, "more pieces", "at most 4194304");
    }
    const auto id = static_cast<TokenId>(pieces_.size());
    const auto once = [&](std::optional<TokenId>& slot) {
      if (slot) refuse(ErrorClass::format, escaped(stored) + " again", "each piece once");
      slot = id;
    };
    if (stored == "<unk>") {
      once(unknown_);
      pieces_.emplace_back(" \xe2\x81\x87 ");  // as sentencepiece decodes it
      return;
    }
    if (stored == "<s>" || stored == "</s>" || stored == "<pad>") {
      once(stored == "<s>" ? bos_ : stored == "</s>" ? eos_ : pad_);
      pieces_.emplace_back();
      return;
    }
    if (stored.size() == 6 && stored.substr(0, 3) == "<0x") {
      for (unsigned byte = 0; byte < 256; ++byte) {
        if (stored != detail::byte_piece(byte)) continue;
        byte_ids_.resize(256, -1);
        if (byte_ids_[byte] >= 0) {
          refuse(ErrorClass::format, escaped(stored) + " again", "each piece once");
        }
        byte_ids_[byte] = id;
        ++bytes_found;
        pieces_.emplace_back(1, static_cast<char>(byte));
        return;
      }
    }
    const bool one_character = utf8_length(stored, 0) == stored.size();
    if (!one_character && *score != std::floor(*score)) {
      refuse(ErrorClass::unsupported, "the score " + number_text(*score),
             "whole numbers, the ranks of BPE merges",
             "Use a BPE model: unigram models are not supported");
    }
    if (!scored_.add(std::string(stored), id, static_cast<float>(*score))) {
      refuse(ErrorClass::format, "the piece " + escaped(stored) + " again", "each piece once");
    }
    std::string shown;
    for (std::size_t i = 0; i < stored.size();) {
      const bool space = stored.substr(i, 3) == meta_space;
      shown += space ? ' ' : stored[i];
      i += space ? 3 : 1;
    }
    pieces_.push_back(std::move(shown));
  }

  std::string name_;
  std::vector<std::string> pieces_;  // by id: the bytes it stands for
  ScoredPieces scored_;
  std::vector<TokenId> byte_ids_;  // 256, or none
  std::optional<TokenId> unknown_, bos_, eos_, pad_;
};
static_assert(Tokenizer<VocabTokenizer>);

}  // namespace ropewalk::inline ROPEWALK_ABI
