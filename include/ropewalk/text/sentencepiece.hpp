// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Sentencepiece models (`tokenizer.model`) of byte-pair encoding.

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/io/file_kind.hpp"
#include "ropewalk/text/bpe_tokenizer.hpp"
#include "ropewalk/text/llama2c_tokenizer.hpp"
#include "ropewalk/text/protobuf.hpp"
#include "ropewalk/text/scored_merges.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

enum class PieceType {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct SentencePiece {
  std::string text = {};
  float score = 0;
  PieceType type = PieceType::normal;
};

/// What of a ModelProto matters.
struct SentencepieceFile {
  std::vector<SentencePiece> pieces = {};
  std::uint64_t model_type = 1;  // as the format defines it: unigram
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::string unknown_surface = " \xe2\x81\x87 ";
  std::string bos_piece = "<s>";
  std::string normalizer = {};
  std::size_t charsmap_bytes = 0;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

inline SentencePiece read_piece(ProtobufReader in) {
  SentencePiece out;
  while (!in.done()) {
    const auto f = in.next();
    if (f.number == 1) {
      out.text = in.bytes_of(f);
    } else if (f.number == 2) {
      out.score = in.float_of(f);
    } else if (f.number == 3) {
      const std::uint64_t type = in.number_of(f);
      if (type < 1 || type > 6) {
        fail({.kind = ErrorClass::format,
              .file = in.file(),
              .where = "byte " + std::to_string(in.offset()),
              .found = "the piece type " + std::to_string(type),
              .expected = "1 to 6"});
      }
      out.type = static_cast<PieceType>(type);
    }
  }
  return out;
}

inline SentencepieceFile read_sentencepiece_file(ProtobufReader in) {
  constexpr std::size_t max_pieces = std::size_t{1} << 22;
  SentencepieceFile out;
  while (!in.done()) {
    const auto f = in.next();
    if (f.number == 1) {
      if (out.pieces.size() == max_pieces) {
        fail({.kind = ErrorClass::limit,
              .file = in.file(),
              .found = "more pieces",
              .expected = "at most " + std::to_string(max_pieces)});
      }
      out.pieces.push_back(read_piece(in.message_of(f)));
    } else if (f.number == 2) {
      for (ProtobufReader spec = in.message_of(f); !spec.done();) {
        const auto g = spec.next();
        if (g.number == 3) out.model_type = spec.number_of(g);
        if (g.number == 24) out.whitespace_as_suffix = spec.number_of(g) != 0;
        if (g.number == 35) out.byte_fallback = spec.number_of(g) != 0;
        if (g.number == 44) out.unknown_surface = spec.bytes_of(g);
        if (g.number == 46) out.bos_piece = spec.bytes_of(g);
      }
    } else if (f.number == 3) {
      for (ProtobufReader spec = in.message_of(f); !spec.done();) {
        const auto g = spec.next();
        if (g.number == 1) out.normalizer = spec.bytes_of(g);
        if (g.number == 2) out.charsmap_bytes = spec.bytes_of(g).size();
        if (g.number == 3) out.add_dummy_prefix = spec.number_of(g) != 0;
        if (g.number == 4) out.remove_extra_whitespaces = spec.number_of(g) != 0;
        if (g.number == 5) out.escape_whitespaces = spec.number_of(g) != 0;
      }
    }
  }
  return out;
}

}  // namespace detail

/// Makes the tokenizer of a sentencepiece model of type BPE. As sentencepiece does it: a space
/// before a text that is not empty (add_dummy_prefix), spaces at the ends dropped and runs of them
/// made one (remove_extra_whitespaces), each where the model asks for it; user-defined pieces are
/// found first and never merged; unknown characters become bytes (byte_fallback), else one unknown
/// id a run. Control pieces never come out of text unless `special` says so.
/// \throws Error(format, limit) for a damaged file; Error(unsupported) for unigram, word and
/// character models, a normalisation other than identity, spaces as suffixes, unused pieces.
template <ByteSource S>
BpeTokenizer read_sentencepiece(const S& source, SpecialTokens special = SpecialTokens::as_text) {
  using detail::byte_piece;
  using detail::meta_space;
  using detail::PieceType;
  using detail::read_sentencepiece_file;
  using detail::SentencePiece;
  using detail::SentencepieceFile;
  using detail::shown_piece;
  refuse_other_kinds(source, FileKind::unknown, "a sentencepiece model");
  const std::string data = read_text(source, max_scored_file);
  const std::string& name = source.name();
  const auto refuse = [&name](ErrorClass kind, std::string where, std::string found,
                              std::string expected) {
    fail({.kind = kind,
          .file = name,
          .where = std::move(where),
          .found = std::move(found),
          .expected = std::move(expected)});
  };
  if (data.starts_with("IQ== 0\n")) {
    refuse(ErrorClass::unsupported, "", "a tiktoken file",
           "a sentencepiece model, or the tokenizer.json of the same model");
  }
  SentencepieceFile file = read_sentencepiece_file(ProtobufReader(data, name));
  if (file.model_type != 2) {
    constexpr const char* types[] = {"0", "1, unigram", "2, BPE", "3, words", "4, characters"};
    refuse(ErrorClass::unsupported, "trainer_spec",
           "the model type " + (file.model_type < 5 ? std::string(types[file.model_type])
                                                    : std::to_string(file.model_type)),
           "2, BPE");
  }
  if (file.charsmap_bytes != 0) {
    refuse(ErrorClass::unsupported, "normalizer_spec",
           "the normalization " + escaped(file.normalizer), "identity");
  }
  if (file.whitespace_as_suffix) {
    refuse(ErrorClass::unsupported, "trainer_spec", "treat_whitespace_as_suffix", "false");
  }
  if (file.pieces.empty()) {
    refuse(ErrorClass::format, "pieces", "none", "a vocabulary that is not empty");
  }

  BpeTokenizerParts parts;
  parts.special_tokens = special;
  if (file.remove_extra_whitespaces) parts.normalizers.emplace_back(CollapseSpacesStep());
  if (file.add_dummy_prefix) parts.normalizers.emplace_back(PrependStep{" "});
  if (file.escape_whitespaces) {
    parts.normalizers.emplace_back(ReplaceStep{std::string(" "), std::string(meta_space)});
  }
  parts.strip_spaces = file.add_dummy_prefix ? 1 : 0;
  BpeVocabulary& v = parts.vocabulary;
  v.name = name;
  v.fuse_unknown = true;

  const std::size_t count = file.pieces.size();
  std::vector<std::string> texts(count);
  WordTable all(count), normal(count);
  std::vector<TokenId> bytes(256, -1);
  std::size_t bytes_found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    SentencePiece& p = file.pieces[i];
    const auto id = static_cast<TokenId>(i);
    const std::string where = "piece " + std::to_string(i);
    if (p.text.empty() || find_invalid_utf8(p.text) != std::string_view::npos) {
      refuse(ErrorClass::format, where, escaped(p.text), "UTF-8 text that is not empty");
    }
    if (p.text.size() > max_scored_piece) {
      refuse(ErrorClass::limit, where, std::to_string(p.text.size()) + " bytes",
             "at most " + std::to_string(max_scored_piece));
    }
    if (!std::isfinite(p.score)) {
      refuse(ErrorClass::format, where, "a score that is not finite", "a finite score");
    }
    texts[i] = p.text;
    if (!all.add(id, texts)) {
      refuse(ErrorClass::format, where, escaped(p.text) + " again", "each piece once");
    }
    std::string shown = shown_piece(p.text);
    const bool control = p.type == PieceType::control;
    switch (p.type) {
      case PieceType::normal:
        normal.add(id, texts);
        break;
      case PieceType::unknown:
        if (v.unknown) refuse(ErrorClass::format, where, "a second unknown piece", "one");
        v.unknown = id;
        shown = file.unknown_surface;
        break;
      case PieceType::control:
        parts.added_tokens.push_back({.id = id, .content = p.text, .special = true});
        v.never.push_back(id);
        if (p.text == file.bos_piece) parts.bos = id;
        shown = p.text;
        break;
      case PieceType::user_defined:
        parts.fixed_pieces.push_back({.id = id, .content = p.text});
        break;
      case PieceType::unused:
        refuse(ErrorClass::unsupported, where, "an unused piece", "pieces that are used");
        break;
      case PieceType::byte: {
        std::size_t b = 0;
        while (b < 256 && byte_piece(static_cast<unsigned>(b)) != p.text) ++b;
        if (b == 256) refuse(ErrorClass::format, where, escaped(p.text), "<0x00> to <0xFF>");
        bytes[b] = id;
        ++bytes_found;
        shown = std::string(1, static_cast<char>(b));
        break;
      }
    }
    parts.shown.push_back(std::move(shown));
    parts.present.push_back(true);
    parts.control.push_back(control);
  }
  if (file.byte_fallback) {
    if (bytes_found != 256) {
      refuse(ErrorClass::format, "pieces", std::to_string(bytes_found) + " byte pieces",
             "256, as byte_fallback needs them");
    }
    v.fallback = bytes;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (file.pieces[i].type != PieceType::normal) continue;
    const std::string_view text = texts[i];
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = utf8_length(text, at);
      if (normal.find(text.substr(at, n), texts) < 0) {
        refuse(ErrorClass::unsupported, "piece " + std::to_string(i),
               escaped(text) + ", whose character " + escaped(text.substr(at, n)) + " is no piece",
               "pieces made of characters that are pieces");
      }
      at += n;
    }
  }
  v.pieces.resize(count);
  std::vector<float> scores;
  for (std::size_t i = 0; i < count; ++i) {
    if (file.pieces[i].type == PieceType::normal) v.pieces[i] = std::move(texts[i]);
    scores.push_back(file.pieces[i].score);
  }
  v.merges = merges_of_scores(v.pieces, scores, name);
  return BpeTokenizer(std::move(parts));
}

}  // namespace ropewalk::inline ROPEWALK_ABI
