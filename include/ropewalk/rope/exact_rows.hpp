// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// ExactRows: rows of cos and sin as products of the rows of two small tables in double.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::inline ROPEWALK_ABI {
namespace detail {

/// Makes rows of cos and sin, times attention_factor, of any positions.
///
/// A position is p = 32 a + b with 0 <= b < 32, and e^(i p w) = e^(i 32 a w) * e^(i b w). Both
/// factors come in double from exact turns; their product is rounded to float once. Each factor is
/// within 2e-16 and the product's two roundings add at most 2e-16, so that cos and sin are within
/// 8e-16 before the last rounding. Every position is made in this way, so that a row's bits depend
/// on plan and position alone, not on the other positions.
///
/// **Cost:** one product a pair for each position; a sine and a cosine a pair for each new b and
/// whenever a is not that of the position before. Holds a row of doubles for each b met so far.
class ExactRows {
 public:
  /// plan: must outlive this. positions: how many rows fill() will be asked for, to make room.
  ExactRows(const FrequencyPlan& plan, std::size_t positions)
      : plan_(plan), blocks_((plan.turns.size() + width - 1) / width) {
    table_.reserve((1 + std::min(positions, std::size_t{span})) * blocks_);
    table_.resize(blocks_);
    row_of_.fill(no_row);
  }

  /// cos, sin: (pairs) of `position`.
  void fill(std::int64_t position, float* cos, float* sin) {
    const std::int64_t start = position & -span;
    if (start != start_ || !has_start_) {
      make(start, table_.data());
      for (std::size_t n = 0; n < blocks_; ++n) scale(table_[n], plan_.attention_factor);
      start_ = start, has_start_ = true;
    }
    const Block* b = row_of(position - start);
    const Block* a = table_.data();
    const std::size_t pairs = plan_.turns.size();
    std::size_t i = 0;
    for (; i + width <= pairs; i += width) multiply(*a++, *b++, cos + i, sin + i);
    if (i < pairs) {
      float last_cos[width], last_sin[width];
      multiply(*a, *b, last_cos, last_sin);
      std::memcpy(cos + i, last_cos, (pairs - i) * sizeof(float));
      std::memcpy(sin + i, last_sin, (pairs - i) * sizeof(float));
    }
  }

 private:
  // Loops of a fixed number of rounds over this many pairs are what compilers vectorise even when
  // told to optimise little; much shorter ones g++ -O3 unrolls first and then vectorises badly.
  static constexpr std::size_t width = 16;
  // Values of b: few, so that their rows stay in the first-level cache and short runs make few;
  // each run of as many positions takes one more row, of 32 a.
  static constexpr std::int64_t span = 32;
  static constexpr std::uint8_t no_row = 255;

  struct alignas(64) Block {
    double cos[width];
    double sin[width];
  };

  /// e^(i position w) of all pairs.
  void make(std::int64_t position, Block* row) const {
    const std::size_t pairs = plan_.turns.size();
    const std::uint64_t* turns = plan_.turns.data();
    std::size_t i = 0;
    for (; i + width <= pairs; i += width) *row++ = turned(turns + i, position);
    if (i < pairs) {
      std::uint64_t last[width] = {};
      std::copy(turns + i, turns + pairs, last);
      *row = turned(last, position);
    }
  }
  static Block turned(const std::uint64_t* turns, std::int64_t position) {
    Block block;
    for (std::size_t i = 0; i < width; ++i) {
      // Wraps: only the fraction of a turn matters, and negative positions turn back.
      const std::uint64_t phase = turns[i] * static_cast<std::uint64_t>(position);
      const elementary::SinCos v = elementary::sincos_turns(static_cast<std::int64_t>(phase));
      block.cos[i] = v.cos;
      block.sin[i] = v.sin;
    }
    return block;
  }
  static void scale(Block& block, double factor) {
    for (double& x : block.cos) x *= factor;
    for (double& x : block.sin) x *= factor;
  }
  static void multiply(const Block& a, const Block& b, float* __restrict cos,
                       float* __restrict sin) {
    for (std::size_t i = 0; i < width; ++i) {
      // The products that are added to are rounded before: fused sums cannot take them in.
      cos[i] = static_cast<float>(elementary::fma(-a.sin[i], b.sin[i], a.cos[i] * b.cos[i]));
      sin[i] = static_cast<float>(elementary::fma(a.sin[i], b.cos[i], a.cos[i] * b.sin[i]));
    }
  }
  const Block* row_of(std::int64_t b) {
    std::uint8_t& row = row_of_[static_cast<std::size_t>(b)];
    if (row == no_row) {
      row = static_cast<std::uint8_t>(table_.size() / blocks_);
      table_.resize(table_.size() + blocks_);
      make(b, table_.data() + row * blocks_);
    }
    return table_.data() + row * blocks_;
  }

  const FrequencyPlan& plan_;
  std::size_t blocks_;        // of a row, the last one's lanes behind the last pair unused
  std::vector<Block> table_;  // (1 + rows of b, blocks): the row of 32 a, times attention_factor,
                              // then those of b in order of first use
  std::array<std::uint8_t, std::size_t{span}> row_of_ = {};
  std::int64_t start_ = 0;  // 32 a
  bool has_start_ = false;
};

}  // namespace detail
}  // namespace ropewalk::inline ROPEWALK_ABI
