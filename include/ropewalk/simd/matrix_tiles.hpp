// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// MatrixTiles: products of bf16 matrices by the processor's matrix tiles (AMX), or their bits.

#include <algorithm>
#include <cstdint>

#include "ropewalk/simd/pairs.hpp"

namespace ropewalk::inline ROPEWALK_ABI {
namespace simd {

/// Elements along the depth that a tile's product takes together; rows and columns of a tile.
inline constexpr index_t tile_depth = 32, tile_side = 16;
/// Rows and columns of four tiles, which a product keeps in registers: 2 x 2 of them want as many
/// loads as products.
inline constexpr index_t tile_block = 2 * tile_side;

/// Asks the operating system for matrix tiles, which are 8 KiB of registers a thread that it must
/// save; true for good once it has allowed them. Ask before other threads start.
inline bool request_matrix_tiles() noexcept {
#if defined(__linux__) && defined(__x86_64__)
  unsigned a = 7, b = 0, c = 0, d = 0;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  constexpr unsigned bf16_products = 1u << 22, tiles = 1u << 24;
  if ((d & bf16_products) == 0 || (d & tiles) == 0) return false;
  // Linux, Documentation/arch/x86/xstate.rst: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
  constexpr long arch_prctl = 158, request_permission = 0x1023, tile_data = 18;
  long result = arch_prctl;
  asm volatile("syscall"
               : "+a"(result)
               : "D"(request_permission), "S"(tile_data)
               : "rcx", "r11", "memory");
  return result == 0;
#else
  return false;
#endif
}

/// Products of bf16 matrices. An element of a product is, over groups of 32 along the depth,
/// ascending: c + (even + odd), where even and odd are fma chains from zero over the group's even
/// and odd elements; subnormals are zeros, as operands and as results. That is what tdpbf16ps
/// computes (Intel's manual, volume 2), and so it is computed where there is none. A last group of
/// less than 32 is shorter.
///
/// While it lives, this thread's tiles are its own: one kernel call makes one. The sums of the last
/// block stay in registers until the next block has begun, or store() is called: loads that follow
/// stores to addresses that end in the same 12 bits would wait for them (a quarter of the time).
template <class Arch>
class MatrixTiles {
  static constexpr bool emulated = std::is_same_v<Arch, emulated_amx>;

 public:
  MatrixTiles() = default;
  MatrixTiles(const MatrixTiles&) = delete;
  MatrixTiles& operator=(const MatrixTiles&) = delete;
  ~MatrixTiles() {
    if constexpr (!emulated) {
      if (rows_ != 0) asm volatile("tilerelease" ::: "memory");
    }
  }

  /// c = a b, or c + a b where `continued`, once store() has been called. Any rows; columns a
  /// multiple of 16, depth of 2. a: (rows, depth), row stride lda; b: (depth / 2, columns, 2), from
  /// one row of pairs to the next ldb pairs; c: (rows, columns), row stride ldc. meanwhile():
  /// called with every group of every block, to do a bit of vector work beside the tiles'.
  template <class Meanwhile>
  void multiply(const bf16* a, index_t lda, index_t rows, const bf16* b, index_t ldb,
                index_t columns, index_t depth, bool continued, float* c, index_t ldc,
                const Meanwhile& meanwhile) noexcept {
    if constexpr (!emulated) {
      if (rows % tile_block == 0 && columns % tile_block == 0 && depth % tile_depth == 0) {
        multiply_whole(a, lda, rows, b, ldb, columns, depth, continued, c, ldc, meanwhile);
        return;
      }
    }
    for (index_t row = 0; row < rows; row += tile_block) {
      for (index_t column = 0; column < columns; column += tile_block) {
        multiply_block(a + row * lda, lda, std::min(rows - row, tile_block), b + 2 * column, ldb,
                       std::min(columns - column, tile_block), depth, continued,
                       c + row * ldc + column, ldc, meanwhile);
      }
    }
  }
  void multiply(const bf16* a, index_t lda, index_t rows, const bf16* b, index_t ldb,
                index_t columns, index_t depth, bool continued, float* c, index_t ldc) noexcept {
    multiply(a, lda, rows, b, ldb, columns, depth, continued, c, ldc, [] {});
  }
  /// Writes the sums that are still in registers.
  void store() noexcept {
    if constexpr (!emulated) {
      if (waiting_.c == nullptr) return;
      with_shape(waiting_.row_tiles, waiting_.column_tiles, [&](auto row_tiles, auto column_tiles) {
        each_sum<row_tiles(), column_tiles()>([&](auto sum) __attribute__((always_inline)) {
          store_waiting<sum()>();
        });
      });
      waiting_.c = nullptr;
    }
  }
  /// `rounds` products for each of a block's four sums, of zeros in the registers: the limit of all
  /// others.
  void multiply_registers(index_t rounds) noexcept {
    if constexpr (!emulated) {
      shape(tile_block, tile_depth / 2);
      unroll<8>([](auto i) __attribute__((always_inline)) { clear<static_cast<int>(i())>(); });
      for (index_t k = 0; k < rounds; ++k) {
        add_product<0, 4, 6>();
        add_product<1, 4, 7>();
        add_product<2, 5, 6>();
        add_product<3, 5, 7>();
      }
    }
  }

 private:
  static constexpr index_t element = sizeof(bf16);

  /// Where a block's operands begin, and how far it is to the next row (bytes) or group.
  struct Operands {
    const bf16* a;
    index_t row_of_a;
    const bf16* b;
    index_t row_of_b;
    index_t group_of_b;  ///< elements
    index_t groups;
  };
  /// Where the sums in the registers belong, and how many tiles of them there are.
  struct Waiting {
    float* c = nullptr;
    index_t ldc = 0;
    int row_tiles = 0, column_tiles = 0;
  };

  /// Whole blocks and groups, without a question between any two.
  template <class Meanwhile>
  void multiply_whole(const bf16* a, index_t lda, index_t rows, const bf16* b, index_t ldb,
                      index_t columns, index_t depth, bool continued, float* c, index_t ldc,
                      const Meanwhile& meanwhile) noexcept {
    if (rows_ != tile_block || pairs_ != tile_depth / 2 || waiting_.column_tiles != 2) store();
    shape(tile_block, tile_depth / 2);
    for (index_t row = 0; row < rows; row += tile_block) {
      for (index_t column = 0; column < columns; column += tile_block) {
        float* sums = c + row * ldc + column;
        add_products<2, 2>({a + row * lda, lda * element, b + 2 * column, ldb * 2 * element,
                            ldb * tile_depth, depth / tile_depth},
                           continued, sums, ldc, meanwhile);
        waiting_ = {sums, ldc, 2, 2};
      }
    }
  }
  /// At most 32 rows and 32 columns.
  template <class Meanwhile>
  void multiply_block(const bf16* a, index_t lda, index_t rows, const bf16* b, index_t ldb,
                      index_t columns, index_t depth, bool continued, float* c, index_t ldc,
                      const Meanwhile& meanwhile) noexcept {
    if constexpr (emulated) {
      emulate(a, lda, rows, b, ldb, columns, depth, continued, c, ldc);
      meanwhile();
    } else {
      const index_t groups = depth / tile_depth, rest = depth % tile_depth;
      const auto add = [&](index_t pairs, index_t from, index_t count, bool more) {
        const int row_tiles = rows > tile_side ? 2 : 1, column_tiles = columns > tile_side ? 2 : 1;
        if (rows != rows_ || pairs != pairs_ || column_tiles != waiting_.column_tiles) store();
        shape(rows, pairs);
        const Operands o{a + from * tile_depth, lda * element,    b + from * tile_depth * ldb,
                         ldb * 2 * element,     ldb * tile_depth, count};
        with_shape(row_tiles, column_tiles,
                   [&](auto r, auto v) { add_products<r(), v()>(o, more, c, ldc, meanwhile); });
        waiting_ = {c, ldc, row_tiles, column_tiles};
      };
      if (groups > 0) add(tile_depth / 2, 0, groups, continued);
      if (rest > 0) add(rest / 2, groups, 1, continued || groups > 0);
    }
  }

  template <class F>
  [[gnu::always_inline]] static void with_shape(int row_tiles, int column_tiles, F&& f) {
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    if (row_tiles == 2) {
      column_tiles == 2 ? f(Two{}, Two{}) : f(Two{}, One{});
    } else {
      column_tiles == 2 ? f(One{}, Two{}) : f(One{}, One{});
    }
  }

  // Registers: sums 0 to 3 (row major), rows of a 4 and 5, columns of b 6 and 7.
  template <int Register>
  [[gnu::always_inline]] static void load(const void* from, index_t row) {
#if defined(__x86_64__)
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row), "i"(Register) : "memory");
#endif
  }
  template <int Register>
  [[gnu::always_inline]] static void store(void* to, index_t row) {
#if defined(__x86_64__)
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(row), "i"(Register) : "memory");
#endif
  }
  template <int Register>
  [[gnu::always_inline]] static void clear() {
#if defined(__x86_64__)
    asm volatile("tilezero %%tmm%c0" ::"i"(Register));
#endif
  }
  template <int Sum, int A, int B>
  [[gnu::always_inline]] static void add_product() {
#if defined(__x86_64__)
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
#endif
  }

  /// f(integral_constant<register>) for the sums of so many tiles.
  template <int RowTiles, int ColumnTiles, class F>
  [[gnu::always_inline]] static void each_sum(F&& f) {
    unroll<RowTiles * ColumnTiles>([&](auto i) __attribute__((always_inline)) {
      constexpr int tile = static_cast<int>(i());
      f(std::integral_constant<int, 2 * (tile / ColumnTiles) + tile % ColumnTiles>{});
    });
  }
  template <int Sum>
  [[gnu::always_inline]] static float* place_of(float* c, index_t ldc) {
    return c + Sum / 2 * tile_side * ldc + Sum % 2 * tile_side;
  }
  template <int Sum>
  [[gnu::always_inline]] void store_waiting() const {
    store<Sum>(place_of<Sum>(waiting_.c, waiting_.ldc),
               waiting_.ldc * static_cast<index_t>(sizeof(float)));
  }

  template <int RowTiles, int ColumnTiles, class Meanwhile>
  [[gnu::always_inline]] void add_products(Operands o, bool continued, float* c, index_t ldc,
                                           const Meanwhile& meanwhile) const {
    const bf16* second_rows = o.a + tile_side * (o.row_of_a / element);
    const auto load_operands = [&]() __attribute__((always_inline)) {
      load<6>(o.b, o.row_of_b);
      load<4>(o.a, o.row_of_a);
      if constexpr (ColumnTiles == 2) load<7>(o.b + 2 * tile_side, o.row_of_b);
      if constexpr (RowTiles == 2) load<5>(second_rows, o.row_of_a);
      o.a += tile_depth;
      second_rows += tile_depth;
      o.b += o.group_of_b;
    };
    load_operands();
    const bool stores = waiting_.c != nullptr;  // before a sum is loaded, perhaps from there
    each_sum<RowTiles, ColumnTiles>([&](auto sum) __attribute__((always_inline)) {
      if (stores) store_waiting<sum()>();
      if (continued) {
        load<sum()>(place_of<sum()>(c, ldc), ldc * static_cast<index_t>(sizeof(float)));
      } else {
        clear<sum()>();
      }
      add_product<sum(), 4 + sum() / 2, 6 + sum() % 2>();
    });
    meanwhile();
    for (index_t g = 1; g < o.groups; ++g) {
      load_operands();
      each_sum<RowTiles, ColumnTiles>([&](auto sum) __attribute__((always_inline)) {
        add_product<sum(), 4 + sum() / 2, 6 + sum() % 2>();
      });
      meanwhile();
    }
  }

  /// Shapes the registers for so many rows of a and c, and pairs along the depth.
  void shape(index_t rows, index_t pairs) {
    if (rows == rows_ && pairs == pairs_) return;
    rows_ = rows;
    pairs_ = pairs;
    struct alignas(64) Configuration {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } shapes;
    const auto set = [&](int tile, index_t tile_rows, index_t bytes) {
      shapes.rows[tile] = static_cast<std::uint8_t>(tile_rows);
      shapes.row_bytes[tile] = static_cast<std::uint16_t>(bytes);
    };
    constexpr index_t row_of_sums = tile_side * index_t{sizeof(float)};
    const index_t first = std::min(rows, tile_side), second = std::max<index_t>(rows - first, 1);
    set(0, first, row_of_sums);
    set(1, first, row_of_sums);
    set(2, second, row_of_sums);
    set(3, second, row_of_sums);
    set(4, first, pairs * 2 * element);
    set(5, second, pairs * 2 * element);
    set(6, pairs, row_of_sums);
    set(7, pairs, row_of_sums);
#if defined(__x86_64__)
    asm volatile("ldtilecfg %0" ::"m"(shapes));
#endif
  }

  static void emulate(const bf16* a, index_t lda, index_t rows, const bf16* b, index_t ldb,
                      index_t columns, index_t depth, bool continued, float* c, index_t ldc) {
    const FlushSubnormals flush(true);
    for (index_t r = 0; r < rows; ++r) {
      float* sums = c + r * ldc;
      if (!continued) std::fill(sums, sums + columns, 0.0f);
      for (index_t k = 0; k < depth; k += tile_depth) {
        float even[tile_block] = {}, odd[tile_block] = {};
        for (index_t i = k; i < std::min(depth, k + tile_depth); i += 2) {
          const float first = to_float(a[r * lda + i]), second = to_float(a[r * lda + i + 1]);
          const bf16* pairs = b + i * ldb;
          for (index_t n = 0; n < columns; ++n) {
            even[n] = std::fma(first, to_float(pairs[2 * n]), even[n]);
            odd[n] = std::fma(second, to_float(pairs[2 * n + 1]), odd[n]);
          }
        }
        for (index_t n = 0; n < columns; ++n) sums[n] += even[n] + odd[n];
      }
    }
  }

  index_t rows_ = 0, pairs_ = 0;  ///< what the registers are shaped for
  Waiting waiting_;
};

}  // namespace simd
}  // namespace ropewalk::inline ROPEWALK_ABI
