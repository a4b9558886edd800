// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The token windows that sweep and ppl score.

#include <optional>
#include <string>
#include <vector>

#include "ropewalk/eval/perplexity.hpp"

#include "loaded_model.hpp"

namespace cli {

/// Options that say what is scored.
struct DataOptions {
  std::vector<std::string> texts = {};
  std::string tokens = {};
  std::string document_separator = {};
  std::string bos = "auto";
  std::optional<std::int64_t> window_tokens = {};
  std::optional<std::int64_t> windows = {};
};

void add_data_options(Options& options, DataOptions& out);

/// Token ids cut into windows.
struct ScoringData {
  std::vector<TokenId> ids = {};          ///< (windows, window_tokens)
  std::vector<std::uint32_t> bytes = {};  ///< of text per id; empty when ids were given
  index_t window_tokens = 0;
  std::uint64_t hash = 0;  ///< of the ids scored and how they are cut

  TokenWindows windows() const { return {ids, window_tokens}; }
  /// Bytes of text that the first `length` targets of every window stand for; 0 when unknown.
  std::int64_t text_bytes(index_t length) const;
};

/// Either texts or tokens are given. `longest`: the longest length to be scored.
/// \throws Error(usage) for windows too short or too little text; as the readers.
ScoringData load_data(const DataOptions& options, const LoadedModel& model, index_t longest);

}  // namespace cli
