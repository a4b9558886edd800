// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Texts as documents, and documents as one stream of ids.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/text/tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// `text` without ASCII white space (space, \t, \n, \v, \f, \r) at both ends.
constexpr std::string_view strip(std::string_view text) {
  constexpr std::string_view space = " \t\n\v\f\r";
  const std::size_t first = text.find_first_not_of(space);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(space) - first + 1);
}

/// Cuts a text at every `separator`, strips each part and drops empty ones. Without a separator the
/// text is one document as it is, byte for byte, or none if empty. The parts point into `text`.
inline std::vector<std::string_view> split_documents(std::string_view text,
                                                     std::string_view separator) {
  std::vector<std::string_view> out;
  if (separator.empty()) {
    if (!text.empty()) out.push_back(text);
    return out;
  }
  for (std::size_t at = 0; at <= text.size();) {
    std::size_t end = text.find(separator, at);
    if (end == std::string_view::npos) end = text.size();
    if (const std::string_view part = strip(text.substr(at, end - at)); !part.empty()) {
      out.push_back(part);
    }
    at = end + separator.size();
  }
  return out;
}

/// Whether BOS goes before each document.
enum class BosPolicy {
  automatic,  ///< when the tokenizer has one
  yes,        ///< always; an error when the tokenizer has none
  no,
};

/// "auto", "yes" or "no". \throws Error(usage)
inline BosPolicy parse_bos_policy(std::string_view text) {
  if (text == "auto") return BosPolicy::automatic;
  if (text == "yes") return BosPolicy::yes;
  if (text == "no") return BosPolicy::no;
  fail({.kind = ErrorClass::usage,
        .field = "bos",
        .found = escaped(text),
        .expected = "auto, yes or no"});
}

/// Documents one after the other, BOS included.
struct EncodedDocuments {
  TokenStream tokens = {};
  std::vector<std::int64_t> cu_seqlens = {0};  ///< start of each document, and the end of the last
};

/// Encodes documents and appends them to `out`. \throws Error(usage) when BOS is asked for and the
/// tokenizer has none; as T::encode.
template <Tokenizer T>
void encode_documents(const T& tokenizer, const std::vector<std::string_view>& documents,
                      BosPolicy bos, EncodedDocuments& out) {
  const std::optional<TokenId> id = tokenizer.bos_id();
  if (bos == BosPolicy::yes && !id) {
    fail({.kind = ErrorClass::usage,
          .field = "bos",
          .found = "yes, but the tokenizer has no BOS",
          .expected = "auto or no"});
  }
  for (const std::string_view document : documents) {
    if (id && bos != BosPolicy::no) out.tokens.push(*id, 0);
    tokenizer.encode(document, out.tokens);
    out.cu_seqlens.push_back(static_cast<std::int64_t>(out.tokens.size()));
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
