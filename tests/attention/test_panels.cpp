// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/panels.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

/// Panels in memory of a mark, so that what was not written shows.
template <class T>
struct MarkedPanels {
  Buffer<T> keys, values;
  KeyValuePanels<T> panels;

  MarkedPanels(index_t slots, index_t heads, index_t d)
      : keys(KeyValuePanels<T>::keys_size(slots, heads, d)),
        values(KeyValuePanels<T>::values_size(slots, heads, d)),
        panels{keys.data(), values.data(), slots, heads, d} {
    for (T& x : keys.span()) x = simd::rounded_to<T>(-99.0f);
    for (T& x : values.span()) x = simd::rounded_to<T>(-99.0f);
  }
};

template <class T>
std::size_t differences(const Buffer<T>& a, const Buffer<T>& b) {
  std::size_t count = 0;
  for (index_t i = 0; i < a.size(); ++i) count += !(a[i] == b[i]);
  return count;
}

/// Tokens stored together lie where they would alone, and nothing else is written.
template <class T>
void check_stored_together() {
  for (const index_t d : {1, 8, 16, 32, 34, 64, 80, 96, 130}) {
    const index_t ld = d + 5;  // the last row ends the memory: over-reads show
    const auto rows = normal_floats(63 * ld + d, 1);
    for_each_arch([&]<class Arch>() {
      for (const index_t slot : {64, 65, 71, 80, 95, 126}) {
        for (const index_t count : {0, 1, 2, 3, 15, 16, 17, 31, 48, 63}) {
          if (slot + count > 128 && slot > 64) continue;
          if (d > 64 && count > 17) continue;
          const float* first = rows.data() + (63 - std::max<index_t>(count - 1, 0)) * ld;
          MarkedPanels<T> together(192, 2, d), alone(192, 2, d);
          store_keys<Arch>(together.panels, 1, slot, count, first, ld);
          store_values<Arch>(together.panels, 1, slot, count, first, ld);
          for (index_t t = 0; t < count; ++t) {
            alone.panels.store_key(1, slot + t, first + t * ld);
            alone.panels.store_value(1, slot + t, first + t * ld);
          }
          CAPTURE(d);
          CAPTURE(slot);
          CAPTURE(count);
          REQUIRE(differences(together.keys, alone.keys) == 0);
          REQUIRE(differences(together.values, alone.values) == 0);
        }
      }
    });
  }
}

/// Every token reads back as T holds it, beside others and in the documented place.
template <class T>
void check_round_trip() {
  constexpr index_t group = depth_group<T>;
  for (const index_t d : {1, 7, 16, 34, 64, 66, 130}) {
    MarkedPanels<T> stored(128, 2, d);
    const KeyValuePanels<T>& panels = stored.panels;
    const auto rows = normal_floats(2 * 128 * d, 2);
    const auto row = [&](index_t h, index_t t) { return rows.data() + (h * 128 + t) * d; };
    for (index_t h = 0; h < 2; ++h) {
      for (index_t t = 0; t < 128; ++t) {
        panels.store_key(h, t, row(h, t));
        panels.store_value(h, t, row(1 - h, t));
      }
    }
    std::size_t wrong = 0;
    std::vector<float> key(static_cast<std::size_t>(d)), value(key.size());
    for (index_t h = 0; h < 2; ++h) {
      for (index_t t = 0; t < 128; ++t) {
        load_key(panels, h, t, key.data());
        load_value(panels, h, t, value.data());
        for (index_t c = 0; c < d; ++c) {
          const auto at = static_cast<std::size_t>(c);
          const T k = simd::rounded_to<T>(row(h, t)[c]), v = simd::rounded_to<T>(row(1 - h, t)[c]);
          wrong += key[at] != to_float(k) || value[at] != to_float(v);
          const T* in_panel = panels.key_panel(h, t / 64 * 64) + c / group * 64 * group;
          wrong += !(in_panel[t % 64 * group + c % group] == k);
          const T* pair = panels.value_panel(h, c / 64, t / group * group);
          wrong += !(pair[c % 64 * group + t % group] == v);
        }
        for (index_t c = d; c < round_up(d, lane_count); ++c) {  // padding: zeros
          const T* pair = panels.value_panel(h, c / 64, t / group * group);
          wrong += !(pair[c % 64 * group + t % group] == T{});
        }
      }
    }
    CHECK(wrong == 0);
    MarkedPanels<T> ended(64, 1, d);
    ended.panels.end_values(0, 7);
    ended.panels.end_values(0, 32);  // a whole group: nothing to do
    for (index_t t = 0; t < 64; ++t) {
      load_value(ended.panels, 0, t, value.data());
      for (const float x : value) wrong += x != (group == 2 && t >= 7 && t < 32 ? 0.0f : -99.0f);
    }
    CHECK(wrong == 0);
  }
}

}  // namespace

TEST_CASE("attention/panels: tokens stored together lie where they would alone") {
  check_stored_together<float>();
  check_stored_together<bf16>();
}

TEST_CASE("attention/panels: what is stored is found where it is documented, and read back") {
  check_round_trip<float>();
  check_round_trip<bf16>();
}

TEST_CASE("attention/panels: runs of slots end at panels and at jumps") {
  const std::vector<index_t> slots = {62, 63, 64, 65, 66, 128, 129, 5, 4, 10};
  std::vector<std::vector<index_t>> runs;
  for_each_slot_run(slots, [&](index_t first, index_t slot, index_t count) {
    runs.push_back({first, slot, count});
  });
  const std::vector<std::vector<index_t>> expected = {{0, 62, 2}, {2, 64, 3}, {5, 128, 2},
                                                      {7, 5, 1},  {8, 4, 1},  {9, 10, 1}};
  CHECK(runs == expected);
  for_each_slot_run({}, [](index_t, index_t, index_t) { FAIL("no slots, no runs"); });
}
