// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The rotation kernel and its transpose, for both pair layouts.

#include <span>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/executor.hpp"
#include "ropewalk/rope/pair_layout.hpp"
#include "ropewalk/rope/rotary_rows.hpp"
#include "ropewalk/simd/floats.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Which way to turn. The transpose is the vector-Jacobian product: it keeps attention_factor and
/// turns back, so it is the inverse only where the factor is 1.
enum class Rotation { forward, transpose };

/// Rotates one head in place: (u, v) -> (u cos - v sin, v cos + u sin) for each pair.
/// x: (2 * pairs) channels; cos, sin: (pairs).
///
/// **Error:** 2e-7 of the pair's norm (tests/rope/test_rotate.cpp).
template <class Arch, class Layout>
void rotate_head(float* x, const float* cos, const float* sin, index_t pairs,
                 Rotation direction) noexcept {
  using V = simd::Floats<Arch>;
  const float sign = direction == Rotation::forward ? 1.0f : -1.0f;
  for (index_t i = 0; i < pairs; i += simd::lanes) {
    const index_t left = pairs - i;
    const V c = V::load_part(cos + i, left);
    const V s = V::load_part(sin + i, left) * V(sign);
    const V minus_s = V::load_part(sin + i, left) * V(-sign);
    V u, v;
    if constexpr (Layout::layout == PairLayout::half_split) {
      u = V::load_part(x + i, left);
      v = V::load_part(x + pairs + i, left);
    } else {
      V::load_pairs(x + 2 * i, left, u, v);
    }
    const V turned_u = fma(u, c, v * minus_s);
    const V turned_v = fma(v, c, u * s);
    if constexpr (Layout::layout == PairLayout::half_split) {
      turned_u.store_part(x + i, left);
      turned_v.store_part(x + pairs + i, left);
    } else {
      V::store_pairs(x + 2 * i, left, turned_u, turned_v);
    }
  }
}

/// As above with the layout chosen at run time.
template <class Arch>
void rotate_head(PairLayout layout, float* x, const float* cos, const float* sin, index_t pairs,
                 Rotation direction) noexcept {
  if (layout == PairLayout::half_split) {
    rotate_head<Arch, HalfSplit>(x, cos, sin, pairs, direction);
  } else {
    rotate_head<Arch, Interleaved>(x, cos, sin, pairs, direction);
  }
}

/// Rotates channels [rows.first_channel, + 2 * rows.num_pairs) of every head of every token in
/// place; the others stay as they are.
/// x: (tokens, num_heads, head_dim), any strides between tokens and heads, channels adjacent;
/// rows.row: (tokens).
/// \throws Error(usage) when the shapes do not fit.
template <class Arch = simd::native>
void rotate(HeadsView<float> x, const RotaryRows& rows, PairLayout layout,
            Rotation direction = Rotation::forward, const Executor& executor = {}) {
  require(x.extent(0) == static_cast<index_t>(rows.row.size()), "one rotary row per token");
  require(x.extent(2) >= rows.first_channel + 2 * rows.num_pairs,
          "head_dim >= first_channel + rotary_dim");
  require(x.stride(2) == 1, "adjacent channels (stride 1)");
  for_each_in_runs(executor, x.extent(0), [&](index_t token, index_t) {
    const index_t row = rows.row[static_cast<std::size_t>(token)] * rows.num_pairs;
    for (index_t head = 0; head < x.extent(1); ++head) {
      rotate_head<Arch>(layout, &x(token, head, rows.first_channel), rows.cos.data() + row,
                        rows.sin.data() + row, rows.num_pairs, direction);
    }
  });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
