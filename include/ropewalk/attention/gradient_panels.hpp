// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The panels that attention's gradient reads besides the forward pass's: keys as rows, values
/// transposed.

#include "ropewalk/attention/panels.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Of the keys of a panel of 64 slots, which are stored transposed (KeyValuePanels::keys), the rows
/// (as KeyValuePanels::values of `rows`); of the values, which are stored as rows, the transpose
/// (as KeyValuePanels::keys of `transposed`). Slots are those of one panel, a multiple of 64 first.
/// `count` of them hold tokens; what else is written is finite.
template <class Arch>
void transpose_panels(const KeyValuePanels<float>& from, index_t head, index_t slot, index_t count,
                      const KeyValuePanels<float>& rows,
                      const KeyValuePanels<float>& transposed) noexcept {
  constexpr index_t lanes = simd::lanes;
  const index_t depth = from.head_dim;
  const float* keys = from.key_panel(head, slot);
  float* value_columns = transposed.key_panel(head, slot);
  for (index_t c = 0; c < round_up(depth, lanes); c += lanes) {
    const index_t panel = c / panel_width, width = from.value_width(panel);
    const index_t in_panel = c % panel_width;
    const float* values = from.value_panel(head, panel, slot) + in_panel;
    float* key_rows = rows.value_panel(head, panel, slot) + in_panel;
    if (c + lanes <= depth && count == panel_width) {
      for (index_t t = 0; t < panel_width; t += lanes) {
        simd::transpose_16x16<Arch>(keys + c * panel_width + t, panel_width, key_rows + t * width,
                                    width);
        simd::transpose_16x16<Arch>(values + t * width, width, value_columns + c * panel_width + t,
                                    panel_width);
      }
      continue;
    }
    for (index_t t = 0; t < panel_width; ++t) {
      for (index_t i = c; i < c + lanes; ++i) {
        const bool exists = t < count && i < depth;
        key_rows[t * width + i - c] = exists ? keys[i * panel_width + t] : 0.0f;
        if (i < depth) {
          value_columns[i * panel_width + t] = exists ? values[t * width + i - c] : 0.0f;
        }
      }
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
