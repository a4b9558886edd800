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
template <class T>
struct KvCache {
  std::vector<Buffer<T>> keys = {};    ///< one a layer
  std::vector<Buffer<T>> values = {};  ///< one a layer
  index_t num_heads = 0;
  index_t head_dim = 0;
  index_t slots = 0;            ///< capacity in tokens, a multiple of 64
  index_t length = 0;           ///< tokens stored
  std::uint64_t rope_hash = 0;  ///< of the plan of the last pass, once length > 0
  KeyStorage storage = KeyStorage::rotated;

  KeyValuePanels<T> panels(index_t layer) {
    const auto l = static_cast<std::size_t>(layer);
    return {keys[l].data(), values[l].data(), slots, num_heads, head_dim};
  }
};

/// An empty cache for up to `capacity` tokens.
template <class T = float>
KvCache<T> make_kv_cache(const LlamaConfig& config, index_t capacity,
                         KeyStorage storage = KeyStorage::rotated) {
  require(capacity >= 1, "capacity >= 1");
  KvCache<T> cache{.num_heads = config.num_key_value_heads,
                   .head_dim = config.head_dim,
                   .slots = round_up(capacity, panel_width),
                   .storage = storage};
  for (index_t l = 0; l < config.num_hidden_layers; ++l) {
    cache.keys.emplace_back(
        KeyValuePanels<T>::keys_size(cache.slots, cache.num_heads, cache.head_dim));
    cache.values.emplace_back(
        KeyValuePanels<T>::values_size(cache.slots, cache.num_heads, cache.head_dim));
  }
  return cache;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
