// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// KvCache: keys and values of a sequence that is continued token by token.

#include <vector>

#include "ropewalk/attention/panels.hpp"
#include "ropewalk/model/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// In which state a cache keeps its keys.
enum class KeyStorage {
  /// Rotated, all with the same frequencies: a pass with others is refused.
  rotated,
  /// Rotated, each with the frequencies of the pass that made it. Where frequencies follow the
  /// length of the sequence, logits then see angles of no method; it is what transformers does.
  rotated_as_written,
  /// As projected; each pass rotates all of them with its own frequencies before attention. Costs
  /// one rotation a cached key and pass.
  unrotated,
};

/// Panels of every layer for one sequence.
struct KvCache {
  std::vector<Buffer<float>> keys = {};    ///< one a layer
  std::vector<Buffer<float>> values = {};  ///< one a layer
  index_t num_heads = 0;
  index_t head_dim = 0;
  index_t slots = 0;            ///< capacity in tokens, a multiple of 64
  index_t length = 0;           ///< tokens stored
  std::uint64_t rope_hash = 0;  ///< of the plan of the last pass, once length > 0
  KeyStorage storage = KeyStorage::rotated;

  KeyValuePanels panels(index_t layer) {
    const auto l = static_cast<std::size_t>(layer);
    return {keys[l].data(), values[l].data(), slots, num_heads, head_dim};
  }
};

/// Reads what KeyValuePanels::store_key and store_value wrote. key, value: (head_dim)
inline void load_key(const KeyValuePanels& panels, index_t head, index_t slot, float* key) {
  const float* from = panels.key_panel(head, slot / panel_width * panel_width) + slot % panel_width;
  for (index_t c = 0; c < panels.head_dim; ++c) key[c] = from[c * panel_width];
}
inline void load_value(const KeyValuePanels& panels, index_t head, index_t slot, float* value) {
  for (index_t c = 0; c < panels.head_dim; ++c) {
    value[c] = panels.value_panel(head, c / panel_width, slot)[c % panel_width];
  }
}

/// An empty cache for up to `capacity` tokens.
inline KvCache make_kv_cache(const LlamaConfig& config, index_t capacity,
                             KeyStorage storage = KeyStorage::rotated) {
  require(capacity >= 1, "capacity >= 1");
  KvCache cache{.num_heads = config.num_key_value_heads,
                .head_dim = config.head_dim,
                .slots = round_up(capacity, panel_width),
                .storage = storage};
  for (index_t l = 0; l < config.num_hidden_layers; ++l) {
    cache.keys.emplace_back(
        KeyValuePanels::keys_size(cache.slots, cache.num_heads, cache.head_dim));
    cache.values.emplace_back(
        KeyValuePanels::values_size(cache.slots, cache.num_heads, cache.head_dim));
  }
  return cache;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
