// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// KeyValuePanels: keys and values of one layer in the order in which attention reads them.

#include "ropewalk/linalg/packed_matrix.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Non-owning. Token slots are what BlockPlan::key_slot gives; a KV cache is these panels kept.
struct KeyValuePanels {
  float* keys = nullptr;    ///< (num_heads, slots / 64, head_dim, 64): K^T, panel by panel
  float* values = nullptr;  ///< per head, panels of 64 channels: (slots, width of the panel)
  index_t slots = 0;        ///< a multiple of 64
  index_t num_heads = 0;    ///< key/value heads
  index_t head_dim = 0;

  /// Floats of `keys`, and of `values` (padded to 16 channels).
  static index_t keys_size(index_t slots, index_t num_heads, index_t head_dim) {
    return checked_mul(checked_mul(slots, num_heads, "keys"), head_dim, "keys");
  }
  static index_t values_size(index_t slots, index_t num_heads, index_t head_dim) {
    return keys_size(slots, num_heads, round_up(head_dim, lane_count));
  }

  /// (head_dim, 64) of the 64 slots from `slot`, a multiple of 64.
  float* key_panel(index_t head, index_t slot) const {
    return keys + (head * slots + slot) * head_dim;
  }
  index_t num_value_panels() const { return (head_dim + panel_width - 1) / panel_width; }
  index_t value_width(index_t panel) const {
    const index_t left = round_up(head_dim, lane_count) - panel * panel_width;
    return left < panel_width ? left : panel_width;
  }
  /// (slots from `slot` on, value_width(panel)).
  float* value_panel(index_t head, index_t panel, index_t slot) const {
    const index_t padded = round_up(head_dim, lane_count);
    return values + head * slots * padded + panel * panel_width * slots + slot * value_width(panel);
  }

  /// Writes one token's key, already rotated where keys are cached rotated. key: (head_dim)
  void store_key(index_t head, index_t slot, const float* key) const {
    float* out = key_panel(head, slot / panel_width * panel_width) + slot % panel_width;
    for (index_t c = 0; c < head_dim; ++c) out[c * panel_width] = key[c];
  }
  /// Writes one token's value, padding channels as zeros. value: (head_dim)
  void store_value(index_t head, index_t slot, const float* value) const {
    for (index_t p = 0; p < num_value_panels(); ++p) {
      float* out = value_panel(head, p, slot);
      for (index_t i = 0; i < value_width(p); ++i) {
        const index_t channel = p * panel_width + i;
        out[i] = channel < head_dim ? value[channel] : 0.0f;
      }
    }
  }
};

}  // namespace ropewalk::inline ROPEWALK_ABI
