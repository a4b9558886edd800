// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The register tile of every matrix product: some rows of A times 16 to 64 columns of a panel.

#include "ropewalk/linalg/packed_matrix.hpp"
#include "ropewalk/simd/pairs.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Register tile of an instruction set: rows of A times vectors of 16 columns of B. 24 accumulators
/// of AVX-512's 32 registers, 12 of AVX2's 16, 16 of NEON's 32 (of 24 g++ spills some). Tiles are
/// free under the canonical arithmetic: every element is one fma chain, whatever its tile.
template <class Arch>
struct GemmTile {
  static constexpr std::size_t register_width = simd::detail::Register<Arch>::width;
  static constexpr std::size_t rows = register_width < 8 ? 4 : 6;
  static constexpr std::size_t vectors = register_width == simd::lanes ? 4 : 1;
  /// Vectors of tiles of fewer rows: as many as the registers hold, so that a row or two reads a
  /// panel line by line, as it comes from memory.
  static constexpr std::size_t vectors_of(std::size_t tile_rows) {
    if (register_width == 8 && tile_rows <= 2) return 4 / tile_rows;
    return register_width == 4 && tile_rows <= 2 ? 2 : vectors;
  }
  /// Whether it pays that each tile asks for the next rows of A. With 6 x 16, rows are asked for as
  /// often as 16 columns pass, which takes 2 % (benchmarks/README.md, Milan); there tiles of the
  /// last panels ask for the rows that pass over the panels next.
  static constexpr bool fetches_rows = vectors > 1;
};

namespace detail {

/// First column of vector v of a tile.
constexpr index_t column_of(std::size_t v) { return simd::lanes * static_cast<index_t>(v); }

/// Sums of a tile, in registers.
template <class Arch, std::size_t Rows, std::size_t Vectors>
struct Accumulators {
  simd::Floats<Arch> sum[Rows][Vectors];

  [[gnu::always_inline]] void clear() {
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) sum[r][v] = simd::Floats<Arch>(0.0f);
    }
  }
  [[gnu::always_inline]] void load(const float* c, index_t ldc) {
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      const float* row = c + static_cast<index_t>(r) * ldc;
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) {
        sum[r][v] = simd::Floats<Arch>::load(row + column_of(v));
      }
    }
  }
  [[gnu::always_inline]] void store(float* c, index_t ldc) const {
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      float* row = c + static_cast<index_t>(r) * ldc;
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) sum[r][v].store(row + column_of(v));
    }
  }
};

/// What one step along the depth takes from A: an element, or a pair of bf16.
template <class Arch, class T>
using TileOperand = std::conditional_t<depth_group<T> == 2, simd::Pairs<Arch>, simd::Floats<Arch>>;

template <class Arch>
[[gnu::always_inline]] inline simd::Floats<Arch> broadcast(const float* p) {
  return simd::Floats<Arch>(*p);
}
template <class Arch>
[[gnu::always_inline]] inline simd::Pairs<Arch> broadcast(const bf16* p) {
  return simd::Pairs<Arch>::broadcast(p);
}

/// acc[r][v] += element or pair (r) of A times the row `column` of a panel.
/// row: from one row of A to the next.
template <class Arch, class A, class Operand, std::size_t Rows, std::size_t Vectors>
[[gnu::always_inline]] inline void multiply_column(const A* a, index_t row,
                                                   const Operand (&column)[Vectors],
                                                   Accumulators<Arch, Rows, Vectors>& acc) {
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    const auto x = broadcast<Arch>(a + static_cast<index_t>(r) * row);
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) acc.sum[r][v] = fma(x, column[v], acc.sum[r][v]);
  }
}

/// One step along the depth: an element of each row of A times a row of the panel, or a pair.
template <class Arch, std::size_t Rows, std::size_t Vectors, class A, class B>
[[gnu::always_inline]] inline void multiply_step(const A* a, index_t row, const B* b,
                                                 Accumulators<Arch, Rows, Vectors>& acc) {
  if constexpr (std::is_same_v<A, B>) {
    TileOperand<Arch, B> column[Vectors];
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      column[v] = TileOperand<Arch, B>::load(b + column_of(v) * depth_group<B>);
    }
    multiply_column(a, row, column, acc);
  } else {  // pairs of B times floats of A, the odd elements first
    simd::Floats<Arch> column[Vectors];
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      column[v] = simd::load_of_pairs<Arch, true>(b + column_of(v) * 2);
    }
    multiply_column(a + 1, row, column, acc);
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      column[v] = simd::load_of_pairs<Arch, false>(b + column_of(v) * 2);
    }
    multiply_column(a, row, column, acc);
  }
}

/// Steps of a run: a tile asks for one line in each, so that full tiles of 96 rows of A and of all
/// 64 columns of a panel have asked for as many lines as the panel has.
template <class Arch>
inline constexpr index_t steps_of_run = panel_width / column_of(GemmTile<Arch>::vectors) * 4;

/// Runs of a tile of this depth.
template <class Arch, class T>
constexpr index_t runs_of_tile(index_t depth) {
  return depth / depth_group<T> / steps_of_run<Arch>;
}

/// What a tile asks for on its way, because it is read soon: with every step, fetch(k) comes with
/// step k; else fetch(i) comes with the i-th run of steps. after(runs) is for the tile that comes
/// so many runs later, next(runs) for the next one. Any address may be asked for.
struct FetchNothing {
  static constexpr bool with_every_step = true;
  [[gnu::always_inline]] void operator()(index_t) const {}
  FetchNothing after(index_t) const { return {}; }
  FetchNothing next(index_t) const { return {}; }
};
/// The rows of A that follow a tile's Rows rows, for the next tile.
template <std::size_t Rows>
struct FetchRowsBelow {
  static constexpr bool with_every_step = true;
  const void* rows;
  index_t tile_bytes;  ///< from a tile's rows to the next one's

  FetchRowsBelow next(index_t) const {
    return {static_cast<const char*>(rows) + tile_bytes, tile_bytes};
  }

  [[gnu::always_inline]] void operator()(index_t k) const {
    constexpr index_t element_or_pair = 4;
    __builtin_prefetch(static_cast<const char*>(rows) + k * (index_t{Rows} * element_or_pair), 0,
                       3);
  }
};
/// A line after the other from `from` on.
struct FetchLines {
  static constexpr bool with_every_step = false;
  const void* from;

  [[gnu::always_inline]] void operator()(index_t i) const {
    __builtin_prefetch(static_cast<const char*>(from) + i * index_t{storage_alignment}, 0, 2);
  }
  FetchLines after(index_t runs) const {
    return {static_cast<const char*>(from) + runs * index_t{storage_alignment}};
  }
  FetchLines next(index_t runs) const { return after(runs); }
};
/// The same, `lines` of them in each run: for tiles that are few beside what they read.
struct FetchManyLines {
  static constexpr bool with_every_step = false;
  const void* from;
  index_t lines;

  [[gnu::always_inline]] void operator()(index_t i) const {
    for (index_t line = 0; line < lines; ++line) FetchLines{from}(i * lines + line);
  }
  FetchManyLines after(index_t runs) const {
    return {FetchLines{from}.after(runs * lines).from, lines};
  }
};

/// How the elements of A lie in memory: element (r, k) at r * row + k / depth_group * step.
struct TileStrides {
  index_t row;
  index_t step;
};

/// acc[r][v] = fma chain over k ascending of A(r, k) * b[k * ldb + 16 v ..], from acc. Where b has
/// pairs of bf16, A may have floats, two for each pair.
///
/// Steps that are not unrolled move one pointer for A and one for b, and little else takes the
/// ports of the multiply-adds. Unrolled, g++ keeps a pointer for each row of A: tiles of 64 steps
/// take 5 % longer, with AVX2 10 % (benchmarks/README.md). Where a run has 4 steps, that is less
/// than to ask for a line four times; long runs are loops, whose ends processors foresee.
template <class Arch, class A, class B, std::size_t Rows, std::size_t Vectors, class Fetch>
[[gnu::always_inline]] inline void multiply_tile(const A* a, TileStrides strides, const B* b,
                                                 index_t ldb, index_t depth, const Fetch& fetch,
                                                 Accumulators<Arch, Rows, Vectors>& acc) {
  constexpr index_t run = steps_of_run<Arch>;
  constexpr bool unrolled = run <= 4;
  const index_t row = ldb * depth_group<B>, steps = depth / depth_group<B>;
  const auto step = [&]() __attribute__((always_inline)) {
    multiply_step(a, strides.row, b, acc);
    a += strides.step;
    b += row;
  };
  index_t k = 0;
  if constexpr (unrolled && !Fetch::with_every_step) {
    for (; k + run <= steps; k += run) {
      fetch(k / run);
      simd::unroll<run>([&](auto u) __attribute__((always_inline)) {
        const index_t at = k + static_cast<index_t>(u());
        multiply_step(a + at * strides.step, strides.row, b + at * row, acc);
      });
    }
    a += k * strides.step;
    b += k * row;
  } else if constexpr (!unrolled) {
    static_assert(std::is_same_v<Fetch, FetchNothing> || !Fetch::with_every_step);
    for (; k + run <= steps; k += run) {
      fetch(k / run);
      for (index_t i = 0; i < run; ++i) step();
    }
  }
  for (; k < steps; ++k) {
    if constexpr (Fetch::with_every_step) fetch(k);
    step();
  }
}
/// As above for A with its depth contiguous, row stride lda.
template <class Arch, class A, class B, std::size_t Rows, std::size_t Vectors, class Fetch>
[[gnu::always_inline]] inline void multiply_tile(const A* a, index_t lda, const B* b, index_t ldb,
                                                 index_t depth, const Fetch& fetch,
                                                 Accumulators<Arch, Rows, Vectors>& acc) {
  multiply_tile<Arch>(a, TileStrides{lda, depth_group<B>}, b, ldb, depth, fetch, acc);
}

/// Calls f(integral_constant<vectors of a tile>, first column) for tiles of Rows rows that cover
/// [0, columns), a multiple of 16: the widest first, then pairs of vectors, then one.
template <class Arch, std::size_t Rows = GemmTile<Arch>::rows, class F>
[[gnu::always_inline]] inline void for_each_column_tile(index_t columns, F&& f) {
  constexpr std::size_t most = GemmTile<Arch>::vectors_of(Rows);
  index_t column = 0;
  for (; column + column_of(most) <= columns; column += column_of(most)) {
    f(std::integral_constant<std::size_t, most>{}, column);
  }
  if constexpr (most > 2) {
    if (column + column_of(2) <= columns) {
      f(std::integral_constant<std::size_t, 2>{}, column);
      column += column_of(2);
    }
  }
  if constexpr (most > 1) {
    if (column < columns) f(std::integral_constant<std::size_t, 1>{}, column);
  }
}

/// Calls f(integral_constant<rows of a tile>, first row, tiles) for runs of tiles that cover [0,
/// rows): full ones first, then tails of 4, 2 and 1 rows; tiles have at most Most rows.
template <class Arch, std::size_t Most = GemmTile<Arch>::rows, class F>
[[gnu::always_inline]] inline void for_each_run_of_row_tiles(index_t rows, F&& f) {
  constexpr auto full = static_cast<index_t>(Most);
  index_t row = rows / full * full;
  if (row > 0) f(std::integral_constant<std::size_t, Most>{}, index_t{0}, row / full);
  if constexpr (full > 4) {
    if (row + 4 <= rows) f(std::integral_constant<std::size_t, 4>{}, row, index_t{1}), row += 4;
  }
  if constexpr (full > 2) {
    if (row + 2 <= rows) f(std::integral_constant<std::size_t, 2>{}, row, index_t{1}), row += 2;
  }
  if constexpr (full > 1) {
    if (row < rows) f(std::integral_constant<std::size_t, 1>{}, row, index_t{1});
  }
}

/// Calls f(integral_constant<rows of a tile>, first row) for each of these tiles.
template <class Arch, class F>
[[gnu::always_inline]] inline void for_each_row_tile(index_t rows, F&& f) {
  for_each_run_of_row_tiles<Arch>(
      rows, [&](auto tile_rows, index_t row, index_t tiles) __attribute__((always_inline)) {
        for (index_t i = 0; i < tiles; ++i)
          f(tile_rows, row + i * static_cast<index_t>(tile_rows()));
      });
}

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
