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
template <class Arch, class T>
void transpose_panels(const KeyValuePanels<T>& from, index_t head, index_t slot, index_t count,
                      const KeyValuePanels<T>& rows, const KeyValuePanels<T>& transposed) noexcept {
  constexpr index_t lanes = simd::lanes, group = depth_group<T>;
  const index_t depth = from.key_depth();
  const T* keys = from.key_panel(head, slot);
  T* value_columns = transposed.key_panel(head, slot);
  for (index_t c = 0; c < round_up(depth, lanes); c += lanes) {
    const index_t panel = c / panel_width, width = from.value_width(panel);
    const index_t first = c % panel_width;
    const T* values = from.value_panel(head, panel, slot) + first * group;
    T* key_rows = rows.value_panel(head, panel, slot) + first * group;
    if (c + lanes <= depth && count == panel_width) {
      for (index_t t = 0; t < panel_width; t += lanes) {
        const index_t at = c * panel_width + t * group;
        simd::transpose_grouped_16x16<Arch>(keys + at, panel_width, key_rows + t * width, width);
        simd::transpose_grouped_16x16<Arch>(values + t * width, width, value_columns + at,
                                            panel_width);
      }
      continue;
    }
    for (index_t t = 0; t < panel_width; ++t) {
      for (index_t i = 0; i < lanes; ++i) {
        const index_t channel = c + i;
        const bool exists = t < count && channel < depth;
        const index_t in_keys =
            (channel - channel % group) * panel_width + t * group + channel % group;
        const index_t in_values = (t - t % group) * width + i * group + t % group;
        key_rows[in_values] = exists ? keys[in_keys] : T{};
        if (channel < depth) value_columns[in_keys] = exists ? values[in_values] : T{};
      }
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
