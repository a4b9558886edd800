// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What the readers of vocabularies in JSON share: names with ids, merges by names, added tokens,
/// with the checks that make them fit for BpeModel.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/io/json.hpp"
#include "ropewalk/text/added_tokens.hpp"
#include "ropewalk/text/bpe.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Limits of tokenizer files.
struct TokenizerLimits {
  std::uint64_t file_bytes = std::uint64_t{512} << 20;
  std::size_t tokens = std::size_t{1} << 22;
  std::size_t merges = std::size_t{1} << 23;
  std::size_t token_bytes = std::size_t{1} << 16;
  std::size_t added_tokens = std::size_t{1} << 16;
  std::size_t added_token_bytes = 1024;
  std::uint64_t id_factor = 4;  ///< ids are below id_factor * tokens + id_slack
  std::uint64_t id_slack = 1 << 16;
};

/// Names of tokens and their ids.
class TokenNames {
 public:
  explicit TokenNames(const std::string& file) : file_(file) {}

  /// The object {"name": id, ...}. \throws Error(config, format, limit)
  void add_vocabulary(const JsonView& vocab) {
    const Json::Object& o = vocab.as_object();
    if (o.keys.empty()) vocab.refuse("a vocabulary that is not empty", {}, ErrorClass::format);
    for (std::size_t i = 0; i < o.keys.size(); ++i) {
      const auto view = [&] { return vocab.member(o.keys[i], o.values[i]); };
      const JsonNumber* n = o.values[i].if_number();
      if (n == nullptr || n->form != JsonNumber::Form::natural || n->natural >= (1u << 31)) {
        view().refuse("an id from 0 to 2147483647", {}, ErrorClass::format);
      }
      if (o.keys[i].empty()) view().refuse("a name that is not empty", {}, ErrorClass::format);
      if (o.keys[i].size() > limits_.token_bytes) {
        view().refuse("names of at most " + std::to_string(limits_.token_bytes) + " bytes", {},
                      ErrorClass::limit);
      }
      entries_.push_back({o.keys[i], static_cast<TokenId>(n->natural), false});
    }
  }
  /// An array of added tokens. \throws Error(config, format, limit)
  std::vector<AddedToken> add_added_tokens(const std::vector<JsonView>& tokens) {
    if (tokens.size() > limits_.added_tokens) {
      refuse(ErrorClass::limit, "added_tokens", std::to_string(tokens.size()) + " tokens",
             "at most " + std::to_string(limits_.added_tokens));
    }
    std::vector<AddedToken> out;
    for (const JsonView& t : tokens) {
      const auto flag = [&t](std::string_view key, bool otherwise) {
        const auto v = t.find(key);
        return v ? v->as_bool() : otherwise;
      };
      const std::int64_t id = t.at("id").as_integer();
      if (id < 0 || id > 0x7fffffff) {
        t.at("id").refuse("an id from 0 to 2147483647", {}, ErrorClass::format);
      }
      const bool special = flag("special", false);
      add_added_token({.id = static_cast<TokenId>(id),
                       .content = t.at("content").as_string(),
                       .single_word = flag("single_word", false),
                       .lstrip = flag("lstrip", false),
                       .rstrip = flag("rstrip", false),
                       .normalized = flag("normalized", !special),
                       .special = special},
                      t, out);
    }
    return out;
  }
  void add_added_token(AddedToken token, const JsonView& where, std::vector<AddedToken>& out) {
    if (token.content.empty()) {
      where.at("content").refuse("a token that is not empty", {}, ErrorClass::format);
    }
    if (token.content.size() > limits_.added_token_bytes) {
      where.at("content").refuse(
          "added tokens of at most " + std::to_string(limits_.added_token_bytes) + " bytes", {},
          ErrorClass::limit);
    }
    entries_.push_back({token.content, token.id, true});
    out.push_back(std::move(token));
  }

  /// Checks that names and ids belong together one to one; an added token may repeat an entry of
  /// the vocabulary. \throws Error(format, limit)
  void close() {
    if (entries_.size() > limits_.tokens) {
      refuse(ErrorClass::limit, "vocab", std::to_string(entries_.size()) + " tokens",
             "at most " + std::to_string(limits_.tokens));
    }
    const std::uint64_t bound = limits_.id_factor * entries_.size() + limits_.id_slack;
    TokenId largest = -1;
    for (const Entry& e : entries_) {
      if (static_cast<std::uint64_t>(e.id) >= bound) {
        refuse(ErrorClass::limit, escaped(e.name), "the id " + std::to_string(e.id),
               "ids below " + std::to_string(bound) + " for " + std::to_string(entries_.size()) +
                   " tokens");
      }
      largest = std::max(largest, e.id);
    }
    names_.resize(static_cast<std::size_t>(largest) + 1);
    std::vector<bool> added(names_.size());
    table_ = WordTable(entries_.size());
    for (Entry& e : entries_) {
      const auto i = static_cast<std::size_t>(e.id);
      const TokenId known = find(e.name);
      if (known >= 0 && (known != e.id || !e.added || added[i])) {
        refuse(ErrorClass::format, escaped(e.name),
               "the ids " + std::to_string(known) + " and " + std::to_string(e.id), "one id");
      }
      if (known < 0) {
        if (!names_[i].empty()) {
          refuse(ErrorClass::format, "id " + std::to_string(e.id),
                 escaped(names_[i]) + " and " + escaped(e.name), "one token for an id");
        }
        names_[i] = std::move(e.name);
        table_.add(e.id, names_);
      }
      added[i] = added[i] || e.added;
    }
    entries_ = {};
  }

  std::size_t size() const { return names_.size(); }
  /// Empty for an id that no token has.
  const std::string& name(TokenId id) const { return names_[static_cast<std::size_t>(id)]; }
  const std::vector<std::string>& names() const { return names_; }
  /// -1 when there is none.
  TokenId find(std::string_view name) const { return table_.find(name, names_); }
  const TokenizerLimits& limits() const { return limits_; }

  [[noreturn]] void refuse(ErrorClass kind, std::string where, std::string found,
                           std::string expected) const {
    fail({.kind = kind,
          .file = file_,
          .where = std::move(where),
          .found = std::move(found),
          .expected = std::move(expected)});
  }

 private:
  struct Entry {
    std::string name;
    TokenId id;
    bool added;
  };
  TokenizerLimits limits_;
  std::string file_;
  std::vector<Entry> entries_;
  std::vector<std::string> names_;  // by id
  WordTable table_;
};

/// Merges by the names of their parts, in the order of their ranks.
class MergeList {
 public:
  explicit MergeList(const TokenNames& names, std::size_t count) : names_(names), seen_(count) {
    if (count > names.limits().merges) {
      names.refuse(ErrorClass::limit, "merges", std::to_string(count) + " merges",
                   "at most " + std::to_string(names.limits().merges));
    }
    merges_.reserve(count);
  }
  /// `where` gives the place for messages. \throws Error(format)
  template <class Where>
  void add(std::string_view left, std::string_view right, Where&& where) {
    if (left.empty() || right.empty()) {
      names_.refuse(ErrorClass::format, where(), "an empty part", "two tokens");
    }
    BpeMerge m{.left = id_of(left, where),
               .right = id_of(right, where),
               .rank = static_cast<std::uint32_t>(merges_.size())};
    m.result = id_of(std::string(left) + std::string(right), where);
    if (!seen_.add(m)) {
      names_.refuse(ErrorClass::format, where(),
                    escaped(left) + " and " + escaped(right) + " again", "each pair once");
    }
    merges_.push_back(m);
  }
  /// "left right". \throws Error(format)
  template <class Where>
  void add(std::string_view text, Where&& where) {
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      names_.refuse(ErrorClass::format, where(), escaped(text), "two tokens and a space between");
    }
    add(text.substr(0, space), text.substr(space + 1), where);
  }
  std::vector<BpeMerge> take() { return std::move(merges_); }

 private:
  template <class Where>
  TokenId id_of(std::string_view name, Where& where) const {
    const TokenId id = names_.find(name);
    if (id >= 0) return id;
    names_.refuse(ErrorClass::format, where(), escaped(name) + ", which is no token",
                  "merges of tokens into tokens of the vocabulary");
  }
  const TokenNames& names_;
  PairTable seen_;
  std::vector<BpeMerge> merges_;
};

/// The 256 ids of `<0x00>` to `<0xFF>`, or none if the vocabulary has none of them.
/// \throws Error(format) when it has some
inline std::vector<TokenId> byte_fallback_ids(const TokenNames& names) {
  constexpr char hex[] = "0123456789ABCDEF";
  std::vector<TokenId> out;
  std::string missing;
  for (std::size_t b = 0; b < 256; ++b) {
    const std::string name = std::string("<0x") + hex[b >> 4] + hex[b & 15] + ">";
    out.push_back(names.find(name));
    if (out.back() < 0) missing = name;
  }
  if (missing.empty()) return out;
  if (std::any_of(out.begin(), out.end(), [](TokenId id) { return id >= 0; })) {
    names.refuse(ErrorClass::format, "vocab", "no token " + missing,
                 "a token for each byte or for none, as byte_fallback needs them");
  }
  return {};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
