// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// `.vocab` files of sentencepiece: one piece a line with its score.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ropewalk/core/number_text.hpp"
#include "ropewalk/io/file_kind.hpp"
#include "ropewalk/text/bpe.hpp"
#include "ropewalk/text/llama2c_tokenizer.hpp"
#include "ropewalk/text/normalizer.hpp"

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
    const std::string data = read_text(source, max_scored_file);
    BpeVocabulary v{.name = name_};
    std::vector<float> scores;
    std::unordered_set<std::string> seen;
    std::vector<TokenId> byte_ids(256, -1);
    for (std::size_t at = 0, line = 1; at < data.size(); ++line) {
      std::size_t end = data.find('\n', at);
      if (end == std::string::npos) end = data.size();
      const std::string_view text = std::string_view(data).substr(at, end - at);
      const auto [piece, score] = read_line(text, line);
      v.pieces.push_back(add_piece(piece, score, line, byte_ids, seen));
      scores.push_back(static_cast<float>(score));
      at = end + 1;
    }
    if (std::find(byte_ids.begin(), byte_ids.end(), -1) == byte_ids.end()) v.fallback = byte_ids;
    for (const char c : {'\n', '\r', '\t'}) {
      if (!seen.contains(std::string(1, c))) no_pieces_ += c;
    }
    v.unknown = unknown_;
    v.merges = merges_of_scores(v.pieces, scores, name_);
    model_ = std::make_shared<const BpeModel>(std::move(v));
  }

  index_t vocab_size() const { return static_cast<index_t>(pieces_.size()); }
  std::optional<TokenId> bos_id() const { return bos_; }

  /// \throws Error(mismatch) when a character is no piece and the vocabulary has neither bytes nor
  /// <unk>; Error(limit) for a text of 4 GiB or more.
  void encode(std::string_view text, TokenStream& out) const {
    check_text_size(text.size());
    std::string spaced;  // white space that is no piece as spaces
    if (text.find_first_of(no_pieces_) != std::string_view::npos) {
      spaced = text;
      for (char& c : spaced) c = no_pieces_.find(c) == std::string::npos ? c : ' ';
      text = spaced;
    }
    AlignedText buffers[2];
    const TextView view = normalize(spaces_, {text, nullptr, 0}, buffers);
    BpeCache cache(view.text.size());
    std::size_t done = 0;
    model_->encode(view.text, cache, [&](TokenId id, std::size_t end) {
      const std::size_t origin = view.origin_at(end);
      out.push(id, origin - done);
      done = origin;
    });
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
  [[noreturn]] void refuse(ErrorClass kind, std::size_t line, std::string found,
                           std::string expected, std::string fix = {}) const {
    fail({.kind = kind,
          .file = name_,
          .where = "line " + std::to_string(line),
          .found = std::move(found),
          .expected = std::move(expected),
          .fix = std::move(fix)});
  }

  std::pair<std::string_view, double> read_line(std::string_view line, std::size_t number) const {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const std::size_t tab = line.rfind('\t');
    if (tab == std::string_view::npos || tab == 0) {
      refuse(ErrorClass::format, number, escaped(line), "piece, tab, score");
    }
    const auto score = parse_real(line.substr(tab + 1));
    if (!score) {
      refuse(ErrorClass::format, number, escaped(line.substr(tab + 1)), "a finite score");
    }
    return {line.substr(0, tab), *score};
  }

  /// Adds what an id stands for; returns its text inside of a text with spaces as they are, empty
  /// if text never becomes the id by merges.
  std::string add_piece(std::string_view stored, double score, std::size_t line,
                        std::vector<TokenId>& byte_ids, std::unordered_set<std::string>& seen) {
    if (stored.size() > max_scored_piece) {
      refuse(ErrorClass::limit, line, "a piece of " + std::to_string(stored.size()) + " bytes",
             "at most " + std::to_string(max_scored_piece));
    }
    if (find_invalid_utf8(stored) != std::string_view::npos) {
      refuse(ErrorClass::format, line, escaped(stored), "valid UTF-8");
    }
    if (!seen.insert(std::string(stored)).second) {
      refuse(ErrorClass::format, line, "the piece " + escaped(stored) + " again",
             "each piece once");
    }
    const auto id = static_cast<TokenId>(pieces_.size());
    if (stored == "<unk>") {
      unknown_ = id;
      pieces_.emplace_back(" \xe2\x81\x87 ");  // as sentencepiece decodes it
      return {};
    }
    if (stored == "<s>" || stored == "</s>" || stored == "<pad>") {
      if (stored == "<s>") bos_ = id;
      pieces_.emplace_back();
      return {};
    }
    if (stored.size() == 6 && stored.starts_with("<0x")) {
      for (unsigned byte = 0; byte < 256; ++byte) {
        if (stored != detail::byte_piece(byte)) continue;
        byte_ids[byte] = id;
        pieces_.emplace_back(1, static_cast<char>(byte));
        return {};
      }
    }
    const bool one_character = utf8_length(stored, 0) == stored.size();
    if (!one_character && score != std::floor(score)) {
      refuse(ErrorClass::unsupported, line, "the score " + number_text(score),
             "whole numbers, the ranks of BPE merges",
             "Use a BPE model: unigram models are not supported");
    }
    pieces_.push_back(detail::shown_piece(stored));
    return stored.find(' ') == std::string_view::npos ? pieces_.back() : std::string();
  }

  std::string name_;
  std::vector<std::string> pieces_;  // by id: the bytes it stands for
  std::shared_ptr<const BpeModel> model_;
  std::string no_pieces_;  // white space that becomes a space
  std::vector<NormalizerStep> spaces_ = {ReplaceStep{std::string(detail::meta_space), " "}};
  std::optional<TokenId> unknown_, bos_;
};
static_assert(Tokenizer<VocabTokenizer>);

}  // namespace ropewalk::inline ROPEWALK_ABI
