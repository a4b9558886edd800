// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// KeyValuePanels: keys and values of one layer in the order in which attention reads them.

#include <span>

#include "ropewalk/linalg/packed_matrix.hpp"
#include "ropewalk/simd/matrix_tiles.hpp"
#include "ropewalk/simd/transpose.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Non-owning. Token slots are what BlockPlan::key_slot gives; a KV cache is these panels kept. For
/// bf16, channels 2 c and 2 c + 1 of a key are neighbours, and tokens 2 t and 2 t + 1 of a value:
/// the pairs that the dot product takes.
template <class T>
struct KeyValuePanels {
  T* keys = nullptr;      ///< (num_heads, slots / 64, key_depth / group, 64, group): K^T by panels
  T* values = nullptr;    ///< per head, panels of 64 channels: (slots / group, width, group)
  index_t slots = 0;      ///< a multiple of 64
  index_t num_heads = 0;  ///< key/value heads
  index_t head_dim = 0;

  static constexpr index_t group = depth_group<T>;
  /// Tokens whose values are multiplied together at the most (simd/matrix_tiles.hpp).
  static constexpr index_t value_group = simd::tile_depth;

  /// Elements of `keys`, and of `values` (padded to 16 channels).
  static index_t keys_size(index_t slots, index_t num_heads, index_t head_dim) {
    return checked_mul(checked_mul(slots, num_heads, "keys"), round_up(head_dim, group), "keys");
  }
  static index_t values_size(index_t slots, index_t num_heads, index_t head_dim) {
    return keys_size(slots, num_heads, round_up(head_dim, lane_count));
  }

  /// Channels of a stored key: padded to pairs for bf16.
  index_t key_depth() const { return round_up(head_dim, group); }
  /// (key_depth / group, 64, group) of the 64 slots from `slot`, a multiple of 64.
  T* key_panel(index_t head, index_t slot) const {
    return keys + (head * slots + slot) * key_depth();
  }
  index_t num_value_panels() const { return (head_dim + panel_width - 1) / panel_width; }
  index_t value_width(index_t panel) const {
    const index_t left = round_up(head_dim, lane_count) - panel * panel_width;
    return left < panel_width ? left : panel_width;
  }
  /// (slots from `slot` on / group, value_width(panel), group); slot a multiple of group.
  T* value_panel(index_t head, index_t panel, index_t slot) const {
    const index_t padded = round_up(head_dim, lane_count);
    return values + head * slots * padded + panel * panel_width * slots + slot * value_width(panel);
  }

  /// Writes one token's key, already rotated where keys are cached rotated. key: (head_dim)
  void store_key(index_t head, index_t slot, const float* key) const {
    T* out = key_panel(head, slot / panel_width * panel_width) + slot % panel_width * group;
    for (index_t c = 0; c < key_depth(); ++c) {
      out[c / group * (panel_width * group) + c % group] =
          c < head_dim ? simd::rounded_to<T>(key[c]) : T{};
    }
  }
  /// Writes one token's value, padding channels as zeros. value: (head_dim)
  void store_value(index_t head, index_t slot, const float* value) const {
    for (index_t p = 0; p < num_value_panels(); ++p) {
      T* out = value_panel(head, p, slot / group * group) + slot % group;
      for (index_t i = 0; i < value_width(p); ++i) {
        const index_t channel = p * panel_width + i;
        out[i * group] = channel < head_dim ? simd::rounded_to<T>(value[channel]) : T{};
      }
    }
  }
  /// Writes zeros as the values of the slots after the last token of a segment that products take
  /// with it: for bf16 all of its group of 32. They are multiplied with weights of 0, and what was
  /// there before may not be finite.
  void end_values(index_t head, index_t end_slot) const {
    const index_t end = group == 1 ? end_slot : round_up(end_slot, value_group);
    for (index_t slot = end_slot; slot < end; ++slot) {
      for (index_t p = 0; p < num_value_panels(); ++p) {
        T* out = value_panel(head, p, slot / group * group) + slot % group;
        for (index_t i = 0; i < value_width(p); ++i) out[i * group] = T{};
      }
    }
  }
};

/// Reads what store_key() and store_value() wrote. key, value: (head_dim)
template <class T>
void load_key(const KeyValuePanels<T>& panels, index_t head, index_t slot, float* key) {
  constexpr index_t group = depth_group<T>;
  const T* from =
      panels.key_panel(head, slot / panel_width * panel_width) + slot % panel_width * group;
  for (index_t c = 0; c < panels.head_dim; ++c) {
    key[c] = to_float(from[c / group * (panel_width * group) + c % group]);
  }
}
template <class T>
void load_value(const KeyValuePanels<T>& panels, index_t head, index_t slot, float* value) {
  constexpr index_t group = depth_group<T>;
  for (index_t c = 0; c < panels.head_dim; ++c) {
    const T* panel = panels.value_panel(head, c / panel_width, slot / group * group);
    value[c] = to_float(panel[c % panel_width * group + slot % group]);
  }
}

/// Writes the keys of `count` tokens in the slots from `slot` on, which stay within one panel of
/// 64: 16 tokens at a time where slots are aligned to 16. keys: (count, head_dim) floats, row
/// stride ld.
template <class Arch, class T>
void store_keys(const KeyValuePanels<T>& panels, index_t head, index_t slot, index_t count,
                const float* keys, index_t ld) noexcept {
  constexpr index_t group = depth_group<T>;
  constexpr index_t most = 512;  // channels that fit the buffer
  const index_t depth = panels.head_dim;
  index_t t = 0;
  if (slot % simd::lanes == 0 && depth % (simd::lanes * group) == 0 && depth <= most) {
    for (; t + simd::lanes <= count; t += simd::lanes) {
      const index_t at = slot + t;
      T* out = panels.key_panel(head, at / panel_width * panel_width) + at % panel_width * group;
      if constexpr (group == 1) {
        for (index_t c = 0; c < depth; c += simd::lanes) {
          simd::transpose_16x16<Arch>(keys + t * ld + c, ld, out + c * panel_width, panel_width);
        }
      } else {
        alignas(storage_alignment) T rounded[simd::lanes * most];
        for (index_t i = 0; i < simd::lanes; ++i) {
          simd::round_to_bf16<Arch>(keys + (t + i) * ld, depth, rounded + i * depth);
        }
        for (index_t c = 0; c < depth; c += simd::lanes * group) {
          simd::transpose_16x16_pairs<Arch>(rounded + c, depth, out + c * panel_width,
                                            panel_width * group);
        }
      }
    }
  }
  for (; t < count; ++t) panels.store_key(head, slot + t, keys + t * ld);
}

/// Writes the values of `count` tokens in the slots from `slot` on. values: (count, head_dim)
/// floats, row stride ld.
template <class Arch, class T>
void store_values(const KeyValuePanels<T>& panels, index_t head, index_t slot, index_t count,
                  const float* values, index_t ld) noexcept {
  constexpr index_t group = depth_group<T>;
  using V = simd::Floats<Arch>;
  for (index_t p = 0; p < panels.num_value_panels(); ++p) {
    const index_t width = panels.value_width(p), first = p * panel_width;
    for (index_t t = 0; t < count; ++t) {
      const index_t at = slot + t;
      T* out = panels.value_panel(head, p, at / group * group);
      const float* from = values + t * ld + first;
      if constexpr (group == 1) {
        for (index_t i = 0; i < width; i += simd::lanes) {
          V::load_part(from + i, panels.head_dim - first - i).store(out + i);
        }
      } else if (at % group == 0 && t + 1 < count) {
        for (index_t i = 0; i < width; i += simd::lanes) {
          const index_t left = panels.head_dim - first - i;
          simd::store_woven<Arch>(out + i * group, V::load_part(from + i, left),
                                  V::load_part(from + ld + i, left));
        }
        ++t;
      } else {
        for (index_t i = 0; i < width; ++i) {
          out[i * group + at % group] =
              first + i < panels.head_dim ? simd::rounded_to<T>(from[i]) : T{};
        }
      }
    }
  }
}

/// f(first, slot, count) for runs of tokens first .. first + count - 1 whose slots follow each
/// other within one panel of 64. slots: those of the tokens.
template <class F>
void for_each_slot_run(std::span<const index_t> slots, F&& f) {
  const auto size = static_cast<index_t>(slots.size());
  for (index_t first = 0; first < size;) {
    const index_t slot = slots[static_cast<std::size_t>(first)];
    index_t count = 1;
    while (first + count < size && (slot + count) % panel_width != 0 &&
           slots[static_cast<std::size_t>(first + count)] == slot + count) {
      ++count;
    }
    f(first, slot, count);
    first += count;
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
