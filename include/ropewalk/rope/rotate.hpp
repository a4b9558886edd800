// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The rotation kernel and its transpose, for both pair layouts.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ropewalk/core/dtype.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/executor.hpp"
#include "ropewalk/rope/pair_layout.hpp"
#include "ropewalk/rope/rotary_rows.hpp"
#include "ropewalk/simd/pairs.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Which way to turn. The transpose is the vector-Jacobian product: it keeps attention_factor and
/// turns back, so it is the inverse only where the factor is 1.
enum class Rotation { forward, transpose };

namespace detail {

template <class Arch>
[[gnu::always_inline]] inline void put(float* to, index_t count, simd::Floats<Arch> x) {
  x.store_part(to, count);
}
/// Rounds to nearest, ties to even, as to_bf16().
template <class Arch>
[[gnu::always_inline]] inline void put(bf16* to, index_t count, simd::Floats<Arch> x) {
  const simd::Floats<Arch> rounded = nearest_bf16(x);
  if (count >= simd::lanes) return simd::store_upper_halves<Arch>(to, rounded);
  bf16 all[simd::lanes];
  simd::store_upper_halves<Arch>(all, rounded);
  std::memcpy(static_cast<void*>(to), all, static_cast<std::size_t>(count) * sizeof(bf16));
}

/// Cosines and sines of up to 16 * N pairs in the order of the channels they meet, and the rotation
/// of heads with them. Made once per token, so that N times four (half_split: three) registers
/// serve all of its heads.
template <class Arch, class Layout, std::size_t N>
struct PairBlock {
  using V = simd::Floats<Arch>;
  static constexpr bool is_half = Layout::layout == PairLayout::half_split;
  // half_split: the cosine, sine and minus sine of pair 16 i + lane. interleaved: a[2 i], a[2 i +
  // 1] hold each cosine twice, b the sines as (-s, s); minus_s is unused.
  V a[is_half ? N : 2 * N], b[is_half ? N : 2 * N], minus_s[N];

  /// cos, sin: (pairs), 16 * (N - 1) < pairs.
  [[gnu::always_inline]] PairBlock(const float* cos, const float* sin, index_t pairs, float sign) {
    simd::unroll<N>([&](auto i) __attribute__((always_inline)) {
      const index_t first = static_cast<index_t>(i()) * simd::lanes;
      const V c = V::load_part(cos + first, pairs - first);
      const V s = V::load_part(sin + first, pairs - first);
      if constexpr (is_half) {
        a[i] = c;
        b[i] = s * V(sign);
        minus_s[i] = s * V(-sign);
      } else {
        alignas(64) float woven[2 * simd::lanes];
        V::store_pairs(woven, simd::lanes, c, c);
        a[2 * i] = V::load(woven), a[2 * i + 1] = V::load(woven + simd::lanes);
        V::store_pairs(woven, simd::lanes, s * V(-sign), s * V(sign));
        b[2 * i] = V::load(woven), b[2 * i + 1] = V::load(woven + simd::lanes);
      }
    });
  }

  /// Rotates `pairs` pairs. half_split: their second channels follow the first ones at `partner`.
  /// finish(x, channels, at): stores `channels` rotated numbers at channel `at` of x.
  template <class Finish>
  [[gnu::always_inline]] void rotate(const float* x, index_t partner, index_t pairs,
                                     const Finish& finish) const {
    simd::unroll<N>([&](auto i) __attribute__((always_inline)) {
      const index_t first = static_cast<index_t>(i()) * simd::lanes;
      // Whole vectors but for the last one, so that these need no masks.
      const index_t left = i() + 1 < N ? simd::lanes : pairs - first;
      if constexpr (is_half) {
        const V u = V::load_part(x + first, left), v = V::load_part(x + partner + first, left);
        const V turned_u = fma(u, a[i], v * minus_s[i]);
        const V turned_v = fma(v, a[i], u * b[i]);
        finish(turned_u, left, first);
        finish(turned_v, left, partner + first);
      } else {
        simd::unroll<2>([&](auto j) __attribute__((always_inline)) {
          const index_t at = 2 * first + static_cast<index_t>(j()) * simd::lanes;
          const index_t count = 2 * left - static_cast<index_t>(j()) * simd::lanes;
          if (count <= 0) return;
          const V pair = V::load_part(x + at, count);
          finish(fma(pair, a[2 * i + j], swap_neighbours(pair) * b[2 * i + j]), count, at);
        });
      }
    });
  }
};

/// block(first, count, vectors): calls it for the blocks of 64 and 32 pairs that `pairs` consist of
/// and for the rest in blocks of up to 16; vectors: the constant that a block takes.
template <class Arch, class Block>
[[gnu::always_inline]] inline void for_each_pair_block(index_t pairs, const Block& block) {
  constexpr index_t lanes = simd::lanes;
  index_t first = 0;
  // Scalars would keep nothing in registers and take long to compile.
  if constexpr (!std::is_same_v<Arch, simd::portable>) {
    for (; pairs - first >= 4 * lanes; first += 4 * lanes) {
      block(first, 4 * lanes, std::integral_constant<std::size_t, 4>{});
    }
    for (; pairs - first >= 2 * lanes; first += 2 * lanes) {
      block(first, 2 * lanes, std::integral_constant<std::size_t, 2>{});
    }
  }
  for (; first < pairs; first += lanes) {
    block(first, std::min(pairs - first, lanes), std::integral_constant<std::size_t, 1>{});
  }
}

}  // namespace detail

/// Rotates heads of one token in place: (u, v) -> (u cos - v sin, v cos + u sin) for each pair.
/// x: `heads` heads of (2 * pairs) channels, `stride` floats apart; cos, sin: (pairs).
///
/// **Error:** 2e-7 of the pair's norm (tests/rope/test_rotate.cpp).
template <class Arch, class Layout>
void rotate_heads(float* x, index_t heads, index_t stride, const float* cos, const float* sin,
                  index_t pairs, Rotation direction) noexcept {
  const float sign = direction == Rotation::forward ? 1.0f : -1.0f;
  constexpr index_t channels = Layout::layout == PairLayout::half_split ? 1 : 2;
  detail::for_each_pair_block<Arch>(
      pairs, [&](index_t first, index_t count, auto vectors) __attribute__((always_inline)) {
        const detail::PairBlock<Arch, Layout, vectors()> block(cos + first, sin + first, count,
                                                               sign);
        float* head = x + channels * first;
        for (index_t h = 0; h < heads; ++h, head += stride) {
          block.rotate(
              head, pairs,
              count, [&](auto turned, index_t n, index_t at) __attribute__((always_inline)) {
                turned.store_part(head + at, n);
              });
        }
      });
}

/// As above with the layout chosen at run time.
template <class Arch>
void rotate_heads(PairLayout layout, float* x, index_t heads, index_t stride, const float* cos,
                  const float* sin, index_t pairs, Rotation direction) noexcept {
  if (layout == PairLayout::half_split) {
    rotate_heads<Arch, HalfSplit>(x, heads, stride, cos, sin, pairs, direction);
  } else {
    rotate_heads<Arch, Interleaved>(x, heads, stride, cos, sin, pairs, direction);
  }
}

/// Rotates one head in place. x: (2 * pairs) channels; cos, sin: (pairs).
template <class Arch>
void rotate_head(PairLayout layout, float* x, const float* cos, const float* sin, index_t pairs,
                 Rotation direction) noexcept {
  rotate_heads<Arch>(layout, x, 1, 0, cos, sin, pairs, direction);
}

/// How one token turns its heads: pairs of cos and sin from channel first_channel on. With no
/// pairs (a layer without rotation) nothing turns.
struct HeadTurn {
  const float* cos = nullptr;  ///< (pairs)
  const float* sin = nullptr;  ///< (pairs)
  index_t pairs = 0;
  index_t first_channel = 0;
};

/// The turn of a batch's token; rows may be null.
inline HeadTurn turn_of(const RotaryRows* rows, index_t token) {
  if (rows == nullptr) return {};
  const index_t at = rows->row[static_cast<std::size_t>(token)] * rows->num_pairs;
  return {rows->cos.data() + at, rows->sin.data() + at, rows->num_pairs, rows->first_channel};
}

/// Writes scale * (one head, rotated) elsewhere in one pass: the bits of rotate_head(), then a
/// product rounded to float and, for bf16, rounded again to nearest, ties to even.
/// from, to: (head_dim), not overlapping; channels that do not turn are scaled alone.
template <class Arch, class Out>
requires(std::same_as<Out, float> ||
         std::same_as<Out, bf16>) void rotate_head_to(PairLayout layout, const float* from,
                                                      index_t head_dim, const HeadTurn& turn,
                                                      float scale, Out* to) noexcept {
  using V = simd::Floats<Arch>;
  const V factor(scale);
  const auto rotate_as = [&]<class Layout>(Layout) {
    constexpr index_t channels = Layout::layout == PairLayout::half_split ? 1 : 2;
    detail::for_each_pair_block<Arch>(
        turn.pairs, [&](index_t first, index_t count, auto vectors) __attribute__((always_inline)) {
          const detail::PairBlock<Arch, Layout, vectors()> block(turn.cos + first, turn.sin + first,
                                                                 count, 1.0f);
          const index_t start = turn.first_channel + channels * first;
          block.rotate(
              from + start, turn.pairs,
              count, [&](auto turned, index_t n, index_t at) __attribute__((always_inline)) {
                detail::put(to + start + at, n < simd::lanes ? n : simd::lanes, turned * factor);
              });
        });
  };
  const auto copy = [&](index_t first, index_t end) {
    for (index_t i = first; i < end; i += simd::lanes) {
      const index_t n = end - i < simd::lanes ? end - i : simd::lanes;
      detail::put(to + i, n, V::load_part(from + i, n) * factor);
    }
  };
  copy(0, turn.pairs == 0 ? head_dim : turn.first_channel);
  if (turn.pairs == 0) return;
  if (layout == PairLayout::half_split) {
    rotate_as(HalfSplit{});
  } else {
    rotate_as(Interleaved{});
  }
  copy(turn.first_channel + 2 * turn.pairs, head_dim);
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
  if (x.extent(1) == 0) return;
  for_each_in_runs(executor, x.extent(0), [&](index_t token, index_t) {
    const HeadTurn turn = turn_of(&rows, token);
    rotate_heads<Arch>(layout, &x(token, 0, turn.first_channel), x.extent(1), x.stride(1), turn.cos,
                       turn.sin, turn.pairs, direction);
  });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
