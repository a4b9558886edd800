// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Byte-level byte-pair encoding from a vocab.json and a merges.txt, as GPT-2 and Qwen2 came.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/text/tokenizer_json.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What the two files do not say.
struct VocabMergesSettings {
  /// One of word_patterns (gpt2, qwen2, llama3), or a regular expression. Empty: an error.
  std::string pattern = {};
  SpecialTokens special_tokens = SpecialTokens::as_text;
  bool add_prefix_space = false;
};

namespace detail {

/// The pattern that a tokenizer_config.json's tokenizer_class means; empty if unknown.
constexpr std::string_view pattern_of_class(std::string_view tokenizer_class) {
  if (tokenizer_class.ends_with("Fast")) tokenizer_class.remove_suffix(4);
  if (tokenizer_class == "GPT2Tokenizer") return "gpt2";
  if (tokenizer_class == "Qwen2Tokenizer") return "qwen2";
  return {};
}

inline std::vector<BpeMerge> read_merges_text(std::string_view text, const std::string& file,
                                              const TokenNames& names) {
  std::size_t line = 0;
  const auto where = [&] { return file + ": line " + std::to_string(line); };
  MergeList merges(names, static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1);
  std::size_t blank = 0;  // number of a blank line, which only others may follow
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view merge = text.substr(at, end - at);
    at = end + 1;
    ++line;
    if (merge.ends_with('\r')) merge.remove_suffix(1);
    if (line == 1 && merge.starts_with("#version")) continue;
    if (merge.empty()) {
      blank = line;
      continue;
    }
    if (blank != 0) {
      line = blank;
      names.refuse(ErrorClass::format, where(), "a blank line", "two tokens and a space between");
    }
    merges.add(merge, where);
  }
  return merges.take();
}

}  // namespace detail

/// Makes the tokenizer. `config` is the tokenizer_config.json that lies beside, or null: it gives
/// added tokens, BOS, and the pattern where the settings do not. Without it, entries that are
/// neither bytes nor results of merges (GPT-2's <|endoftext|>) are its special tokens.
/// \throws Error(usage) when nothing names the pattern; as read_tokenizer_json.
inline BpeTokenizer read_vocab_merges(const JsonView& vocab, std::string_view merges,
                                      const std::string& merges_file, const JsonView* config,
                                      VocabMergesSettings settings) {
  using detail::fill_pieces;
  using detail::flag_of;
  using detail::pattern_of_class;
  using detail::read_merges_text;
  std::string tokenizer_class;
  if (config != nullptr) {
    if (const auto v = config->find("tokenizer_class")) tokenizer_class = v->as_string();
    if (const auto v = config->find("add_prefix_space")) settings.add_prefix_space = v->as_bool();
  }
  if (settings.pattern.empty()) settings.pattern = pattern_of_class(tokenizer_class);
  if (settings.pattern.empty()) {
    fail({.kind = ErrorClass::usage,
          .file = vocab.file(),
          .field = "tokenizer-pattern",
          .found = tokenizer_class.empty()
                       ? "a vocab.json and merges.txt, which do not say how text is cut into words"
                       : "the tokenizer_class " + escaped(tokenizer_class),
          .expected = "gpt2, qwen2, llama3 or a regular expression",
          .fix = "Name the pattern, or put the model's tokenizer_config.json beside the files"});
  }
  const WordPattern pattern = find_word_pattern(settings.pattern);

  BpeTokenizerParts parts;
  parts.special_tokens = settings.special_tokens;
  if (pattern.nfc) parts.normalizers.emplace_back(UnicodeForm::nfc);
  parts.pre_tokenizers.emplace_back(
      ByteLevelStep{settings.add_prefix_space,
                    Pattern(pattern.regex, pattern.name.empty() ? "" : vocab.file(), "pattern")});
  parts.strip_spaces = settings.add_prefix_space ? 1 : 0;

  TokenNames names(vocab.file());
  names.add_vocabulary(vocab);
  const auto decoder = config == nullptr ? std::nullopt : config->find("added_tokens_decoder");
  if (decoder) {
    const Json::Object& o = decoder->as_object();
    for (std::size_t i = 0; i < o.keys.size(); ++i) {
      const JsonView t = decoder->member(o.keys[i], o.values[i]);
      const bool digits = o.keys[i].find_first_not_of("0123456789") == std::string::npos;
      const auto id = digits ? parse_size(o.keys[i]) : std::nullopt;
      if (!id || *id > 0x7fffffff) {
        t.refuse("a key that is an id from 0 to 2147483647", {}, ErrorClass::format);
      }
      const bool special = flag_of(t, "special", false);
      names.add_added_token({.id = static_cast<TokenId>(*id),
                             .content = t.at("content").as_string(),
                             .single_word = flag_of(t, "single_word", false),
                             .lstrip = flag_of(t, "lstrip", false),
                             .rstrip = flag_of(t, "rstrip", false),
                             .normalized = flag_of(t, "normalized", !special),
                             .special = special},
                            t, parts.added_tokens);
    }
  }
  names.close();
  BpeVocabulary& v = parts.vocabulary;
  v.name = vocab.file();
  v.byte_units = true;
  v.whole_words = pattern.whole_words;
  v.merges = read_merges_text(merges, merges_file, names);

  std::vector<bool> reached(names.size());
  for (const BpeMerge& m : v.merges) reached[static_cast<std::size_t>(m.result)] = true;
  for (const AddedToken& t : parts.added_tokens) reached[static_cast<std::size_t>(t.id)] = true;
  std::size_t unreached = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names.name(static_cast<TokenId>(i));
    if (reached[i] || name.empty() || bytes_of_name(name).value_or("").size() == 1) continue;
    if (++unreached > 1024) {
      names.refuse(ErrorClass::mismatch, "vocab",
                   "more than 1024 tokens that no merge gives, " + escaped(name) + " among them",
                   "the merges.txt that belongs to the vocab.json");
    }
    parts.added_tokens.push_back({.id = static_cast<TokenId>(i), .content = name, .special = true});
  }
  fill_pieces(names, {}, parts);
  if (config != nullptr && flag_of(*config, "add_bos_token", false)) {
    const JsonView bos = config->at("bos_token");
    const JsonView text = bos.value().if_object() != nullptr ? bos.at("content") : bos;
    const TokenId id = names.find(text.as_string());
    if (id < 0) text.refuse("a token of the vocabulary", {}, ErrorClass::format);
    parts.bos = id;
  }
  return BpeTokenizer(std::move(parts));
}

/// Reads `vocab_path`, the merges.txt in the same folder, and its tokenizer_config.json if there is
/// one. \throws as above; Error(io) when merges.txt is missing.
inline BpeTokenizer open_vocab_merges(const std::string& vocab_path,
                                      const VocabMergesSettings& settings) {
  const TokenizerLimits limits;
  const std::size_t slash = vocab_path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : vocab_path.substr(0, slash + 1);
  const JsonDocument vocab = read_json(
      FileSource(vocab_path), {.max_bytes = limits.file_bytes, .max_string = limits.token_bytes});
  const std::string merges_path = folder + "merges.txt";
  const std::string merges = read_text(FileSource(merges_path), limits.file_bytes);
  const std::string config_path = folder + "tokenizer_config.json";
  if (!file_exists(config_path)) {
    return read_vocab_merges(vocab.view(), merges, merges_path, nullptr, settings);
  }
  const JsonDocument config = read_json(FileSource(config_path), {.max_bytes = 16 << 20});
  const JsonView config_view = config.view();
  return read_vocab_merges(vocab.view(), merges, merges_path, &config_view, settings);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
