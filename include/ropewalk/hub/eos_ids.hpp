// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Which ids end a text, by the files of a Hugging Face folder.

#include <algorithm>
#include <string>
#include <vector>

#include "ropewalk/core/tensor_view.hpp"
#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/io/file_name.hpp"
#include "ropewalk/io/json.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// `eos_token_id` (an id, a list of ids, or null) of generation_config.json, or of config.json
/// where that file is not there or does not say; ascending, empty when neither says. \throws
/// Error(config) for values that are no ids below vocab_size; as read_json
inline std::vector<TokenId> read_eos_ids(const std::string& folder, index_t vocab_size) {
  std::vector<TokenId> ids;
  for (const char* name : {"generation_config.json", "config.json"}) {
    const std::string path = join_path(folder, name);
    if (!file_exists(path)) continue;
    const JsonDocument document = read_json(FileSource(path));
    const auto eos = document.view().find("eos_token_id");
    if (!eos) continue;
    const auto add = [&](const JsonView& v) {
      const std::int64_t id = v.as_integer();
      if (id < 0 || id >= vocab_size) {
        v.refuse("an id below vocab_size = " + std::to_string(vocab_size));
      }
      ids.push_back(static_cast<TokenId>(id));
    };
    if (eos->value().if_array() != nullptr) {
      for (const JsonView& v : eos->elements()) add(v);
    } else {
      add(*eos);
    }
    break;
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
