// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// tokenizer.json of Hugging Face's tokenizers, for models of byte-pair encoding.

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/text/bpe_reader.hpp"
#include "ropewalk/text/bpe_tokenizer.hpp"
#include "ropewalk/text/byte_level.hpp"
#include "ropewalk/text/tokenizer_components.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// The id that a post-processor puts before a text, if it does. What it puts elsewhere is ignored:
/// encode() gives the text alone.
inline void find_bos(const JsonView& v, const TokenNames& names, std::optional<TokenId>& bos) {
  const std::string& type = v.at("type").as_string();
  if (type == "Sequence") {
    check_members(v, {"type", "processors"});
    for (const JsonView& part : v.at("processors").elements()) find_bos(part, names, bos);
    return;
  }
  if (type == "ByteLevel") return;
  if (type != "TemplateProcessing") {
    refuse_component(v, "post_processor", type, "TemplateProcessing, ByteLevel or Sequence");
  }
  for (const JsonView& part : v.at("single").elements()) {
    if (part.find("Sequence")) break;
    const auto special = part.find("SpecialToken");
    if (!special) {
      refuse_component(part, "post_processor", "a step of a template", "SpecialToken or Sequence");
    }
    const std::string& name = special->at("id").as_string();
    const JsonView table = v.at("special_tokens");
    const auto entry = table.find(name);
    if (!entry) {
      special->at("id").refuse("one of special_tokens", {}, ErrorClass::format);
    }
    for (const JsonView& id : entry->at("ids").elements()) {
      const std::int64_t value = id.as_integer();
      if (value < 0 || value >= static_cast<std::int64_t>(names.size()) ||
          names.name(static_cast<TokenId>(value)).empty()) {
        id.refuse("the id of a token", {}, ErrorClass::format);
      }
      if (bos) {
        refuse_component(v, "post_processor", "two tokens before a text", "one");
      }
      bos = static_cast<TokenId>(value);
    }
  }
}

inline std::vector<BpeMerge> read_merges(const JsonView& v, const TokenNames& names) {
  const Json::Array* array = v.value().if_array();
  if (array == nullptr) v.refuse("an array", {}, ErrorClass::format);
  MergeList merges(names, array->size());
  for (std::size_t i = 0; i < array->size(); ++i) {
    const auto where = [&] { return v.pointer() + "/" + std::to_string(i); };
    const Json& m = (*array)[i];
    if (const std::string* text = m.if_string()) {
      merges.add(*text, where);
      continue;
    }
    const Json::Array* pair = m.if_array();
    const std::string* left =
        pair != nullptr && pair->size() == 2 ? (*pair)[0].if_string() : nullptr;
    const std::string* right = left != nullptr ? (*pair)[1].if_string() : nullptr;
    if (right == nullptr) {
      names.refuse(ErrorClass::format, where(), json_found_text(m),
                   "\"left right\" or [\"left\", \"right\"]");
    }
    merges.add(*left, *right, where);
  }
  return merges.take();
}

/// Fills `vocabulary.pieces`, `shown`, `present` and `control` from names.
inline void fill_pieces(const TokenNames& names, const DecoderPlan& plan,
                        BpeTokenizerParts& parts) {
  BpeVocabulary& v = parts.vocabulary;
  v.pieces.resize(names.size());
  parts.shown.resize(names.size());
  parts.present.resize(names.size());
  parts.control.resize(names.size());
  std::vector<bool> is_byte(names.size()), is_added(names.size());
  for (const AddedToken& token : parts.added_tokens) {
    is_added[static_cast<std::size_t>(token.id)] = true;
  }
  for (const TokenId id : v.fallback) is_byte[static_cast<std::size_t>(id)] = true;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string& name = names.name(id);
    parts.present[i] = !name.empty();
    if (!v.byte_units) {
      v.pieces[i] = name;
      parts.shown[i] = is_added[i] ? name : shown_of(name, plan, is_byte[i]);
      continue;
    }
    if (auto bytes = bytes_of_name(name)) {
      v.pieces[i] = *bytes;
      parts.shown[i] = is_added[i] ? name : *bytes;
    } else if (is_added[i]) {
      parts.shown[i] = name;  // found as it is, never made of bytes
    } else {
      names.refuse(ErrorClass::format, "vocab", escaped(name),
                   "names in the characters that stand for bytes");
    }
  }
  for (const AddedToken& token : parts.added_tokens) {
    if (!token.special) continue;
    parts.control[static_cast<std::size_t>(token.id)] = true;
    if (parts.special_tokens == SpecialTokens::as_text) v.never.push_back(token.id);
  }
}

}  // namespace detail

/// Makes the tokenizer that a tokenizer.json describes.
/// \throws Error(format, config, limit) with the JSON pointer for a damaged file,
/// Error(unsupported) that names what of a sound one is not implemented.
inline BpeTokenizer read_tokenizer_json(const JsonView& root,
                                        SpecialTokens special = SpecialTokens::as_text) {
  using detail::add_decoders;
  using detail::add_normalizers;
  using detail::add_pre_tokenizers;
  using detail::check_members;
  using detail::DecoderPlan;
  using detail::fill_pieces;
  using detail::find_bos;
  using detail::flag_of;
  using detail::read_merges;
  using detail::refuse_component;
  check_members(root, {"version", "truncation", "padding", "added_tokens", "normalizer",
                       "pre_tokenizer", "post_processor", "decoder", "model"});
  if (const auto version = root.find("version"); version && version->as_string() != "1.0") {
    version->refuse("the version 1.0", {}, ErrorClass::unsupported);
  }
  const JsonView model = root.at("model");
  const auto type = model.find("type");
  if (!type || type->as_string() != "BPE") {
    refuse_component(model, "model", type ? type->as_string() : "a model without a type", "BPE");
  }
  check_members(
      model, {"type", "vocab", "merges", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges",
              "dropout", "continuing_subword_prefix", "end_of_word_suffix"});
  if (const auto dropout = model.find("dropout"); dropout && dropout->as_number() != 0) {
    refuse_component(*dropout, "model", "dropout", "none: ids must not depend on chance");
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto v = model.find(key); v && !v->as_string().empty()) {
      refuse_component(*v, "model", key, "none");
    }
  }

  BpeTokenizerParts parts;
  parts.special_tokens = special;
  TokenNames names(root.file());
  names.add_vocabulary(model.at("vocab"));
  if (const auto added = root.find("added_tokens")) {
    parts.added_tokens = names.add_added_tokens(added->elements());
  }
  names.close();

  if (const auto v = root.find("normalizer")) add_normalizers(*v, parts.normalizers);
  if (parts.normalizers.size() > 64) {
    root.at("normalizer").refuse("at most 64 steps", {}, ErrorClass::limit);
  }
  if (const auto v = root.find("pre_tokenizer")) add_pre_tokenizers(*v, parts.pre_tokenizers);
  DecoderPlan plan;
  if (const auto v = root.find("decoder")) add_decoders(*v, plan);

  BpeVocabulary& vocabulary = parts.vocabulary;
  vocabulary.name = root.file();
  const auto* bytes = parts.pre_tokenizers.empty()
                          ? nullptr
                          : std::get_if<ByteLevelStep>(&parts.pre_tokenizers.back());
  vocabulary.byte_units = bytes != nullptr;
  if (!vocabulary.byte_units && plan.byte_level) {
    refuse_component(root.at("decoder"), "decoder", "ByteLevel without such a pre_tokenizer",
                     "both or none");
  }
  parts.strip_spaces = plan.strip_spaces;
  if (vocabulary.byte_units) parts.strip_spaces = bytes->add_prefix_space ? 1 : 0;
  if (flag_of(model, "byte_fallback", false) && !vocabulary.byte_units) {
    vocabulary.fallback = byte_fallback_ids(names);
  }
  vocabulary.fuse_unknown = flag_of(model, "fuse_unk", false);
  vocabulary.whole_words = flag_of(model, "ignore_merges", false);
  if (const auto unknown = model.find("unk_token")) {
    const TokenId id = names.find(unknown->as_string());
    if (id < 0) unknown->refuse("a token of the vocabulary", {}, ErrorClass::format);
    vocabulary.unknown = id;
  }
  vocabulary.merges = read_merges(model.at("merges"), names);
  fill_pieces(names, plan, parts);
  if (const auto v = root.find("post_processor")) find_bos(*v, names, parts.bos);
  return BpeTokenizer(std::move(parts));
}

/// As above, from a file of at most 512 MiB.
template <ByteSource S>
BpeTokenizer read_tokenizer_json(const S& source, SpecialTokens special = SpecialTokens::as_text) {
  const TokenizerLimits limits;
  const JsonDocument document =
      read_json(source, {.max_bytes = limits.file_bytes, .max_string = limits.token_bytes});
  return read_tokenizer_json(document.view(), special);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
