// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// KV shift: tokens leave a cache, and the keys behind them move to their new positions.

#include <vector>

#include "ropewalk/model/kernel_table.hpp"
#include "ropewalk/model/kv_cache.hpp"
#include "ropewalk/rope/rotary_rows.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Removes the tokens [removed.begin, removed.end) from the cache and moves what follows down. Keys
/// that are cached rotated are turned back by the number of tokens removed, with exact angles
/// (those of position -removed.size()), so the error does not depend on positions; the roundings of
/// repeated shifts add up. Unrotated keys are moved as they are.
///
/// What remains was computed with the removed tokens in sight: predictions differ from those of a
/// fresh pass over the tokens that are left. In one layer, keys and values agree with such a pass.
///
/// **Error:** 1.1e-7 of a key's norm a shift; 2.2e-6 after 100 (tests/model/test_kv_shift.cpp).
/// \param plan the frequencies the keys were rotated with \param layout the model's pairs
/// \throws Error(usage) for tokens that are not in the cache, another plan, or a cache whose keys
/// have several
template <class T>
void remove_tokens(KvCache<T>& cache, Interval removed, const FrequencyPlan& plan,
                   PairLayout layout, const KernelTable<T>& kernels) {
  require(removed.begin >= 0 && removed.begin <= removed.end && removed.end <= cache.length,
          "tokens that are in the cache");
  require(cache.storage != KeyStorage::rotated_as_written,
          "a cache whose keys have the frequencies of one plan");
  const bool rotated = cache.storage == KeyStorage::rotated;
  require(!rotated || cache.length == 0 || cache.rope_hash == plan.rope_hash,
          "the frequencies that the cached keys were rotated with");
  require(plan.first_channel + plan.rotary_dim() <= cache.head_dim,
          "a plan no wider than the cached heads");
  if (removed.empty()) return;
  FrequencyPlan turn = plan;
  turn.attention_factor = 1;  // the keys have it already
  const std::int64_t back = -static_cast<std::int64_t>(removed.size());
  const RotaryRows rows = make_rotary_rows(turn, {&back, 1});
  std::vector<float> key(static_cast<std::size_t>(cache.head_dim));
  std::vector<float> value(static_cast<std::size_t>(cache.head_dim));
  for (std::size_t layer = 0; layer < cache.keys.size(); ++layer) {
    const KeyValuePanels<T> panels = cache.panels(static_cast<index_t>(layer));
    for (index_t head = 0; head < cache.num_heads; ++head) {
      for (index_t slot = removed.end; slot < cache.length; ++slot) {
        load_key(panels, head, slot, key.data());
        load_value(panels, head, slot, value.data());
        if (rotated) {
          kernels.rotate_head(layout, key.data() + rows.first_channel, rows.cos.data(),
                              rows.sin.data(), rows.num_pairs, Rotation::forward);
        }
        panels.store_key(head, slot - removed.size(), key.data());
        panels.store_value(head, slot - removed.size(), value.data());
      }
    }
  }
  cache.length -= removed.size();
}

}  // namespace ropewalk::inline ROPEWALK_ABI
