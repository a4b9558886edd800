// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// KvCache: keys and values of a sequence that is continued token by token.

#include <vector>

#include "ropewalk/attention/panels.hpp"
#include "ropewalk/model/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Panels of every layer for one sequence. Keys are cached rotated, so all of them must be made
/// with the same frequencies: rope_hash remembers which, and a forward pass with others is refused.
struct KvCache {
  std::vector<Buffer<float>> keys = {};    ///< one a layer
  std::vector<Buffer<float>> values = {};  ///< one a layer
  index_t num_heads = 0;
  index_t head_dim = 0;
  index_t slots = 0;            ///< capacity in tokens, a multiple of 64
  index_t length = 0;           ///< tokens stored
  std::uint64_t rope_hash = 0;  ///< of the plan the keys were rotated with, once length > 0

  KeyValuePanels panels(index_t layer) {
    const auto l = static_cast<std::size_t>(layer);
    return {keys[l].data(), values[l].data(), slots, num_heads, head_dim};
  }
};

/// An empty cache for up to `capacity` tokens.
inline KvCache make_kv_cache(const LlamaConfig& config, index_t capacity) {
  require(capacity >= 1, "capacity >= 1");
  KvCache cache{.num_heads = config.num_key_value_heads,
                .head_dim = config.head_dim,
                .slots = round_up(capacity, panel_width)};
  for (index_t l = 0; l < config.num_hidden_layers; ++l) {
    cache.keys.emplace_back(
        KeyValuePanels::keys_size(cache.slots, cache.num_heads, cache.head_dim));
    cache.values.emplace_back(
        KeyValuePanels::values_size(cache.slots, cache.num_heads, cache.head_dim));
  }
  return cache;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
