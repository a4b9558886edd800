// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Which file of a model's folder is its tokenizer.

#include <string>
#include <string_view>

#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/io/file_name.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The tokenizer that a folder brings: tokenizer.json, tokenizer.model, or vocab.json if merges.txt
/// is there too; empty if none.
inline std::string find_tokenizer(const std::string& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json"}) {
    std::string path = join_path(folder, name);
    const bool whole =
        name != std::string_view("vocab.json") || file_exists(join_path(folder, "merges.txt"));
    if (whole && file_exists(path)) return path;
  }
  return {};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
