// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Normalizers, pre-tokenizers and decoders as a tokenizer.json spells them.

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ropewalk/io/json.hpp"
#include "ropewalk/text/byte_level.hpp"
#include "ropewalk/text/normalizer.hpp"
#include "ropewalk/text/pre_tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// \throws Error(unsupported) for a member that is not named.
inline void check_members(const JsonView& v, std::initializer_list<std::string_view> known) {
  for (const std::string& key : v.as_object().keys) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    fail({.kind = ErrorClass::unsupported,
          .file = v.file(),
          .where = v.pointer(),
          .field = "tokenizer",
          .found = "the key " + escaped(key),
          .expected = "keys whose meaning is known"});
  }
}

[[noreturn]] inline void refuse_component(const JsonView& v, std::string_view kind,
                                          std::string_view name, std::string expected) {
  fail({.kind = ErrorClass::unsupported,
        .file = v.file(),
        .where = v.pointer(),
        .field = std::string(kind),
        .found = escaped(name),
        .expected = std::move(expected),
        .fix = "Make token ids elsewhere and give them as a .u16 or .u32 file"});
}

inline bool flag_of(const JsonView& v, std::string_view key, bool otherwise) {
  const auto found = v.find(key);
  return found ? found->as_bool() : otherwise;
}

/// {"Regex": "..."} or {"String": "..."}
inline std::variant<std::string, Pattern> pattern_of(const JsonView& v) {
  check_members(v, {"Regex", "String"});
  if (v.as_object().keys.size() != 1) v.refuse("either Regex or String", {}, ErrorClass::format);
  if (const auto regex = v.find("Regex")) {
    return Pattern(regex->as_string(), v.file(), regex->pointer());
  }
  const std::string& text = v.at("String").as_string();
  if (text.empty()) v.refuse("a string that is not empty", {}, ErrorClass::format);
  return text;
}

inline void add_normalizers(const JsonView& v, std::vector<NormalizerStep>& out) {
  const std::string& type = v.at("type").as_string();
  if (type == "Sequence") {
    check_members(v, {"type", "normalizers"});
    for (const JsonView& part : v.at("normalizers").elements()) add_normalizers(part, out);
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    check_members(v, {"type"});
    out.emplace_back(type == "NFC"    ? UnicodeForm::nfc
                     : type == "NFD"  ? UnicodeForm::nfd
                     : type == "NFKC" ? UnicodeForm::nfkc
                                      : UnicodeForm::nfkd);
  } else if (type == "Lowercase") {
    check_members(v, {"type"});
    out.emplace_back(LowercaseStep());
  } else if (type == "Strip") {
    check_members(v, {"type", "strip_left", "strip_right"});
    out.emplace_back(StripStep{v.at("strip_left").as_bool(), v.at("strip_right").as_bool()});
  } else if (type == "Prepend") {
    check_members(v, {"type", "prepend"});
    out.emplace_back(PrependStep{v.at("prepend").as_string()});
  } else if (type == "Replace") {
    check_members(v, {"type", "pattern", "content"});
    out.emplace_back(ReplaceStep{pattern_of(v.at("pattern")), v.at("content").as_string()});
  } else {
    refuse_component(v, "normalizer", type,
                     "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace or Sequence");
  }
}

inline SplitBehavior behavior_of(const JsonView& v) {
  const std::string& name = v.as_string();
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  v.refuse("Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous", {},
           ErrorClass::format);
}

/// prepend_scheme, or add_prefix_space of older files.
inline MetaspaceStep::Prepend prepend_scheme(const JsonView& v) {
  using Prepend = MetaspaceStep::Prepend;
  const auto scheme = v.find("prepend_scheme");
  if (!scheme) return flag_of(v, "add_prefix_space", true) ? Prepend::always : Prepend::never;
  const std::string& name = scheme->as_string();
  if (name != "always" && name != "first" && name != "never") {
    scheme->refuse("always, first or never", {}, ErrorClass::format);
  }
  return name == "always" ? Prepend::always : name == "first" ? Prepend::first : Prepend::never;
}

inline void add_pre_tokenizers(const JsonView& v, std::vector<PreTokenizerStep>& out) {
  if (!out.empty() && std::holds_alternative<ByteLevelStep>(out.back())) {
    refuse_component(v, "pre_tokenizer", "a step after ByteLevel", "ByteLevel as the last step");
  }
  const std::string& type = v.at("type").as_string();
  if (type == "Sequence") {
    check_members(v, {"type", "pretokenizers"});
    for (const JsonView& part : v.at("pretokenizers").elements()) add_pre_tokenizers(part, out);
  } else if (type == "ByteLevel") {
    check_members(v, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
    ByteLevelStep step{.add_prefix_space = flag_of(v, "add_prefix_space", true)};
    if (flag_of(v, "use_regex", true)) step.pattern.emplace(find_word_pattern("gpt2").regex);
    out.emplace_back(std::move(step));
  } else if (type == "Split") {
    check_members(v, {"type", "pattern", "behavior", "invert"});
    out.emplace_back(SplitStep{pattern_of(v.at("pattern")), behavior_of(v.at("behavior")),
                               flag_of(v, "invert", false)});
  } else if (type == "Metaspace") {
    check_members(
        v, {"type", "replacement", "str_rep", "prepend_scheme", "add_prefix_space", "split"});
    MetaspaceStep step{.replacement = v.at("replacement").as_string(),
                       .prepend = prepend_scheme(v),
                       .split = flag_of(v, "split", true)};
    if (step.replacement.empty() || utf8_length(step.replacement, 0) != step.replacement.size()) {
      v.at("replacement").refuse("one character", {}, ErrorClass::format);
    }
    out.emplace_back(std::move(step));
  } else if (type == "Digits") {
    check_members(v, {"type", "individual_digits"});
    out.emplace_back(DigitsStep{flag_of(v, "individual_digits", false)});
  } else if (type == "Punctuation") {
    check_members(v, {"type", "behavior"});
    const auto behavior = v.find("behavior");
    out.emplace_back(PunctuationStep{behavior ? behavior_of(*behavior) : SplitBehavior::isolated});
  } else {
    refuse_component(v, "pre_tokenizer", type,
                     "ByteLevel, Split, Metaspace, Digits, Punctuation or Sequence");
  }
  if (out.size() > 64) {
    v.refuse("at most 64 steps of pre-tokenization", {}, ErrorClass::limit);
  }
}

/// What a decoder does, in the order in which all decoders of such models do it.
struct DecoderPlan {
  bool byte_level = false;
  bool byte_fallback = false;
  bool fused = false;
  std::vector<std::pair<std::string, std::string>> replacements = {};
  std::size_t strip_spaces = 0;
};

inline void add_decoders(const JsonView& v, DecoderPlan& out) {
  const std::string& type = v.at("type").as_string();
  if (type == "Sequence") {
    check_members(v, {"type", "decoders"});
    for (const JsonView& part : v.at("decoders").elements()) add_decoders(part, out);
  } else if (type == "ByteLevel") {
    check_members(v, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
    out.byte_level = true;
  } else if (type == "ByteFallback") {
    check_members(v, {"type"});
    out.byte_fallback = true;
  } else if (type == "Fuse") {
    check_members(v, {"type"});
    out.fused = true;
  } else if (type == "Replace") {
    check_members(v, {"type", "pattern", "content"});
    const auto pattern = pattern_of(v.at("pattern"));
    if (!std::holds_alternative<std::string>(pattern) || out.fused || out.byte_fallback) {
      refuse_component(v, "decoder", "Replace of a regular expression or after ByteFallback",
                       "Replace of a string, before ByteFallback and Fuse");
    }
    out.replacements.emplace_back(std::get<std::string>(pattern), v.at("content").as_string());
  } else if (type == "Strip") {
    check_members(v, {"type", "content", "start", "stop"});
    const std::int64_t start = v.at("start").as_integer();
    if (v.at("content").as_string() != " " || v.at("stop").as_integer() != 0 || start < 0 ||
        start > 64 || !out.fused) {
      refuse_component(v, "decoder", "Strip of something else than leading spaces of the text",
                       "Strip with content \" \", stop 0, after Fuse");
    }
    out.strip_spaces += static_cast<std::size_t>(start);
  } else if (type == "Metaspace") {
    check_members(
        v, {"type", "replacement", "str_rep", "prepend_scheme", "add_prefix_space", "split"});
    const std::string& replacement = v.at("replacement").as_string();
    if (replacement.empty()) v.refuse("a replacement that is not empty", {}, ErrorClass::format);
    out.replacements.emplace_back(replacement, " ");
    if (prepend_scheme(v) != MetaspaceStep::Prepend::never) out.strip_spaces += 1;
  } else {
    refuse_component(v, "decoder", type,
                     "ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace or Sequence");
  }
}

/// What a name stands for in a decoded text.
inline std::string shown_of(std::string name, const DecoderPlan& plan, bool is_byte) {
  for (const auto& [from, to] : plan.replacements) {
    std::string out;
    std::size_t at = 0;
    for (std::size_t found = name.find(from); found != std::string::npos;
         found = name.find(from, at)) {
      out.append(name, at, found - at).append(to);
      at = found + from.size();
    }
    name = out.append(name, at);
  }
  if (!is_byte || !plan.byte_fallback) return name;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
  return std::string(1, static_cast<char>(digit(name[3]) * 16 + digit(name[4])));
}

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
