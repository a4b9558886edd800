// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Rotary embedding in double, straight from its definition, with its transpose.

#include <cmath>
#include <cstdint>
#include <span>

#include "ropewalk/core/tensor.hpp"
#include "ropewalk/rope/pair_layout.hpp"

namespace ropewalk::inline ROPEWALK_ABI::oracle {

/// Cosines and sines of all angles, times attention_factor.
struct RotaryTable {
  Tensor<double, 2> cos;      ///< (tokens, pairs)
  Tensor<double, 2> sin;      ///< (tokens, pairs)
  index_t first_channel = 0;  ///< of a head's rotated channels
};

/// cos and sin of position x inv_freq.
/// \param positions (tokens)  \param inv_freq (pairs), radians per token
/// **Error:** 1e-15 up to position 2^53: the product's rounding error `rest` is kept, which a
/// double product would lose (2e-9 radians at position 2^24).
inline RotaryTable rotary_table(std::span<const std::int64_t> positions,
                                std::span<const double> inv_freq, double attention_factor) {
  const auto tokens = static_cast<index_t>(positions.size());
  const auto pairs = static_cast<index_t>(inv_freq.size());
  RotaryTable table{.cos = Tensor<double, 2>({tokens, pairs}),
                    .sin = Tensor<double, 2>({tokens, pairs})};
  const auto f = static_cast<long double>(attention_factor);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t i = 0; i < pairs; ++i) {
      const auto p = static_cast<long double>(positions[static_cast<std::size_t>(t)]);
      const auto w = static_cast<long double>(inv_freq[static_cast<std::size_t>(i)]);
      const long double angle = p * w;
      const long double rest = std::fma(p, w, -angle);  // angle + rest = p w exactly
      const long double c = std::cos(angle), s = std::sin(angle);
      table.cos.view()(t, i) = static_cast<double>(f * (c - rest * s));
      table.sin.view()(t, i) = static_cast<double>(f * (s + rest * c));
    }
  }
  return table;
}

/// Pair (u, v) at angle a becomes f (u cos a - v sin a, v cos a + u sin a), f the attention factor,
/// in every head, in place. Of a head the channels [table.first_channel, + 2 * pairs) rotate, the
/// others stay as they are (partial rotation). With `transposed`, the transpose: f (u cos a + v sin
/// a, v cos a - u sin a), through which gradients flow back; it is the inverse only where f = 1.
/// \param x (tokens, heads, head_dim >= first_channel + 2 * pairs)
/// **Source:** arXiv:2104.09864, equation 34.
inline void rotate(HeadsView<double> x, const RotaryTable& table, PairLayout layout,
                   bool transposed = false) {
  const index_t pairs = table.cos.extent(1);
  require(x.extent(0) == table.cos.extent(0), "as many tokens as the table has");
  const index_t first = table.first_channel;
  require(x.extent(2) >= first + 2 * pairs, "a head_dim of at least two channels a pair");
  for (index_t t = 0; t < x.extent(0); ++t) {
    for (index_t h = 0; h < x.extent(1); ++h) {
      for (index_t i = 0; i < pairs; ++i) {
        const bool halves = layout == PairLayout::half_split;
        double& u = x(t, h, first + (halves ? i : 2 * i));
        double& v = x(t, h, first + (halves ? i + pairs : 2 * i + 1));
        const double c = table.cos.view()(t, i);
        const double s = transposed ? -table.sin.view()(t, i) : table.sin.view()(t, i);
        const double rotated = u * c - v * s;
        v = v * c + u * s;
        u = rotated;
      }
    }
  }
}

inline void rotate_transposed(HeadsView<double> x, const RotaryTable& table, PairLayout layout) {
  rotate(x, table, layout, true);
}

}  // namespace ropewalk::inline ROPEWALK_ABI::oracle
