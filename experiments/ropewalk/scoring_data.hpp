// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The texts that sweep and ppl score.

#include <optional>
#include <string>
#include <vector>

#include "ropewalk/eval/windows.hpp"

#include "known_text.hpp"
#include "loaded_model.hpp"

namespace cli {

/// Seed of the synthetic documents that are scored; training uses others.
inline constexpr std::uint64_t validation_seed = 0x76616c6964617465;

/// Options that say what is scored.
struct DataOptions {
  std::vector<std::string> texts = {};
  std::string tokens = {};
  std::string document_separator = {};
  std::string bos = "auto";
  std::optional<std::int64_t> window_tokens = {};
  std::optional<std::int64_t> windows = {};
  bool synthetic = false;
};

void add_data_options(Options& options, DataOptions& out);

/// Ids and what they stand for; owns what EvalText views.
struct ScoringText {
  std::vector<TokenId> ids = {};
  std::vector<std::uint32_t> bytes = {};      ///< of text per id; empty when ids were given
  std::vector<std::int64_t> cu_seqlens = {};  ///< of documents; empty when ids were given
  std::vector<std::int64_t> words = {};       ///< of each document; empty when ids were given
  std::optional<TokenId> prefix_id = {};
  KnownText known = {};  ///< where the text was generated

  EvalText view() const { return {ids, cu_seqlens, bytes, words, prefix_id}; }
};

/// Which readings of the input the protocols of a command need.
struct DataNeeds {
  bool prefix = true;   ///< protocol prefix: BOS before each document, cut into runs
  bool others = false;  ///< protocols that put their prefix token themselves: ids without BOS
  index_t longest = 0;  ///< the longest length to be scored
};

/// What is scored, once or in both readings.
struct ScoringData {
  ScoringText runs = {};   ///< for protocol prefix: whole runs of window_tokens ids
  ScoringText whole = {};  ///< for the other protocols
  index_t window_tokens = 0;
  std::optional<std::int64_t> window_limit = {};  ///< --windows
  std::int64_t words = 0, text_bytes = 0;  ///< of the documents that `runs` is from; 0: unknown
  std::uint64_t hash = 0;  ///< of the ids scored, how they are cut, and what they stand for

  /// Of protocol prefix.
  index_t windows() const;
};

/// Either texts or tokens are given, or documents of the synthetic language are asked for: those of
/// validation, which no training sees.
/// \throws Error(usage) for windows too short or too little text; as the readers.
ScoringData load_data(const DataOptions& options, const LoadedModel& model, const DataNeeds& needs);

}  // namespace cli
