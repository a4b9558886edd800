// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// RotaryRows: the cosines and sines that a batch needs, and which row each token uses.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ropewalk/core/checked.hpp"
#include "ropewalk/core/elementary.hpp"
#include "ropewalk/rope/exact_rows.hpp"
#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// How an angle becomes a cosine.
///
/// **Error** of cos and sin, base 1e4: exact 3.1e-8 at every position up to 2^24; hf_float32 2e-3
/// at 32K, 6e-2 at 1M; ggml_float32 5e-3 and 2e-1 (tests/rope/test_rotary_rows.cpp).
enum class AnglePrecision {
  exact,         ///< 64-bit turns, double sine, one rounding: within 3.1e-8 up to position 2^24
  hf_float32,    ///< position * inv_freq, both and their product float, as transformers
  ggml_float32,  ///< float recurrence theta *= base^(-2/d), divided by per-pair factors, as ggml
};

/// Rows of cos and sin, attention_factor included, shared by all heads and layers of a batch.
struct RotaryRows {
  index_t num_pairs = 0;
  index_t first_channel = 0;      ///< of a head's rotated channels
  std::vector<float> cos;         ///< (rows, num_pairs)
  std::vector<float> sin;         ///< (rows, num_pairs)
  std::vector<std::int32_t> row;  ///< (tokens) row of each token

  index_t num_rows() const {
    return num_pairs == 0 ? 0 : static_cast<index_t>(cos.size()) / num_pairs;
  }
  /// Forgets rows and tokens and keeps the memory, for the next batch.
  void clear() {
    num_pairs = first_channel = 0;
    cos.clear();
    sin.clear();
    row.clear();
  }
};

namespace detail {

/// cos and sin of a float angle, each rounded to float, times the factor in float.
inline void fill_float_angle(float angle, double attention_factor, float* cos, float* sin) {
  const elementary::SinCos v = elementary::sincos(static_cast<double>(angle));
  *cos = static_cast<float>(v.cos) * static_cast<float>(attention_factor);
  *sin = static_cast<float>(v.sin) * static_cast<float>(attention_factor);
}

/// What a float mode needs per pair, made once per plan.
struct FloatPairs {
  std::vector<float> value;  ///< hf_float32: inv_freq; ggml_float32: divisor of the angle
  float theta_scale = 1;     ///< ggml_float32: from one pair's angle to the next
};

inline FloatPairs float_pairs(const FrequencyPlan& plan, AnglePrecision precision) {
  const auto theta = static_cast<float>(plan.rope_theta);
  const auto d = static_cast<float>(plan.rotary_dim());
  const auto float_power = [](float base, float exponent) {
    return static_cast<float>(
        elementary::pow(static_cast<double>(base), static_cast<double>(exponent)));
  };
  FloatPairs pairs = {std::vector<float>(plan.inv_freq.size()), float_power(theta, -2.0f / d)};
  for (std::size_t i = 0; i < plan.inv_freq.size(); ++i) {
    const double plain = elementary::pow(plan.rope_theta, -2 * static_cast<double>(i),
                                         static_cast<double>(plan.rotary_dim()));
    const double slowed = plan.inv_freq[i] / plain;
    if (precision == AnglePrecision::ggml_float32) {
      pairs.value[i] = static_cast<float>(1 / slowed);  // a frequency of 0 divides by infinity
    } else {
      const float float_plain = 1.0f / float_power(theta, static_cast<float>(2 * i) / d);
      pairs.value[i] = static_cast<float>(static_cast<double>(float_plain) * slowed);
    }
  }
  return pairs;
}

/// transformers, modeling_rope_utils.py: inv_freq = 1 / base^(2i/d) in float (of scaled methods
/// within one unit in the last place), times the position in float.
inline void fill_hf_row(const FloatPairs& pairs, double attention_factor, std::int64_t position,
                        float* cos, float* sin) {
  for (const float w : pairs.value) {
    fill_float_angle(static_cast<float>(position) * w, attention_factor, cos++, sin++);
  }
}

/// ggml, ggml_rope_cache_init: theta = p, then theta *= theta_scale for each pair; a pair's own
/// frequency enters as the divisor that ggml calls freq_factors.
inline void fill_ggml_row(const FloatPairs& pairs, double attention_factor, std::int64_t position,
                          float* cos, float* sin) {
  auto theta = static_cast<float>(position);
  for (const float divisor : pairs.value) {
    fill_float_angle(theta / divisor, attention_factor, cos++, sin++);
    theta *= pairs.theta_scale;
  }
}

/// Numbers distinct positions in order of appearance: position[number[token]] is the token's.
struct DistinctPositions {
  std::vector<std::int64_t> position;
  std::vector<std::int32_t> number;
  std::int32_t count = 0;

  explicit DistinctPositions(std::span<const std::int64_t> tokens)
      : position(tokens.size()), number(tokens.size()) {
    std::size_t ascending = 0;
    while (ascending < tokens.size() &&
           (ascending == 0 || tokens[ascending - 1] < tokens[ascending])) {
      position[ascending] = tokens[ascending];
      number[ascending] = static_cast<std::int32_t>(ascending);
      ++ascending;
    }
    if (ascending == tokens.size()) {
      count = static_cast<std::int32_t>(ascending);
      return;
    }
    // Open addressing, at most half full: slots hold number + 1, 0 is free.
    const auto bits = static_cast<int>(std::bit_width(2 * tokens.size() + 1));
    std::vector<std::int32_t> slots(std::size_t{1} << bits);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const std::uint64_t mixed = static_cast<std::uint64_t>(tokens[t]) * 0x9e3779b97f4a7c15ull;
      auto slot = static_cast<std::size_t>(mixed >> (64 - bits));
      const auto taken_by = [&] { return position[static_cast<std::size_t>(slots[slot] - 1)]; };
      while (slots[slot] != 0 && taken_by() != tokens[t]) slot = (slot + 1) & (slots.size() - 1);
      if (slots[slot] == 0) {
        position[static_cast<std::size_t>(count)] = tokens[t];
        slots[slot] = ++count;
      }
      number[t] = slots[slot] - 1;
    }
  }
};

/// Appends rows to tables by way of a few that stay in the first-level cache: resizing the tables
/// would set to zero, in memory, what is written right afterwards.
class RowStage {
 public:
  /// rows: with its number of pairs and room for `count` rows more.
  RowStage(RotaryRows& rows, std::int32_t count)
      : rows_(rows),
        pairs_(static_cast<std::size_t>(rows.num_pairs)),
        capacity_(std::min<std::size_t>(static_cast<std::size_t>(count), 16) * pairs_),
        storage_(2 * capacity_) {}

  struct Row {
    float* cos;  ///< (pairs)
    float* sin;  ///< (pairs)
  };
  /// Where the next row is to be written.
  Row next() {
    if (used_ == capacity_) flush();
    float* cos = storage_.data() + used_;
    used_ += pairs_;
    return {cos, cos + capacity_};
  }
  void flush() {
    const float* cos = storage_.data();
    rows_.cos.insert(rows_.cos.end(), cos, cos + used_);
    rows_.sin.insert(rows_.sin.end(), cos + capacity_, cos + capacity_ + used_);
    used_ = 0;
  }

 private:
  RotaryRows& rows_;
  std::size_t pairs_, capacity_;  // capacity: floats of each table
  std::vector<float> storage_;
  std::size_t used_ = 0;
};

}  // namespace detail

/// Appends the tokens of `positions`, turned by `plan`: token t of this call gets row
/// rows.row[old + t] of the tables. Tokens of one call with equal positions share a row. Several
/// plans may follow each other in one batch; they must have the same number of pairs.
/// positions: (tokens), any sign. A row depends on plan, position and precision alone.
///
/// **Cost:** memory linear in the tokens, whatever the positions, and at most 33 rows of doubles
/// while exact rows are made; exact: a product per distinct position and pair (exact_rows.hpp),
/// float modes: a sine and a cosine.
/// \throws Error(usage) when the plans' pairs differ or the table would exceed 2^31 - 1 rows.
inline void append_rotary_rows(RotaryRows& rows, const FrequencyPlan& plan,
                               std::span<const std::int64_t> positions,
                               AnglePrecision precision = AnglePrecision::exact) {
  constexpr auto limit = std::numeric_limits<std::int32_t>::max();
  require(plan.num_pairs() > 0, "a frequency plan with at least one pair");
  require(rows.num_pairs == 0 || rows.num_pairs == plan.num_pairs(),
          "plans with the same number of pairs in one batch");
  require(positions.size() <= static_cast<std::size_t>(limit), "at most 2^31 - 1 tokens");
  const detail::DistinctPositions tokens(positions);
  require(rows.num_pairs == 0 || rows.first_channel == plan.first_channel,
          "plans that rotate the same channels in one batch");
  rows.num_pairs = plan.num_pairs();
  rows.first_channel = plan.first_channel;
  const index_t first_row = rows.num_rows();
  require(first_row + tokens.count <= limit, "at most 2^31 - 1 rows");

  const index_t elements = checked_mul(first_row + tokens.count, rows.num_pairs, "rotary rows");
  rows.cos.reserve(static_cast<std::size_t>(elements));
  rows.sin.reserve(static_cast<std::size_t>(elements));
  const auto fill_rows = [&](auto&& fill_row) {
    detail::RowStage stage(rows, tokens.count);
    for (std::int32_t i = 0; i < tokens.count; ++i) {
      const auto [cos, sin] = stage.next();
      fill_row(tokens.position[static_cast<std::size_t>(i)], cos, sin);
    }
    stage.flush();
  };
  const double factor = plan.attention_factor;
  if (precision == AnglePrecision::exact) {
    detail::ExactRows exact(plan, static_cast<std::size_t>(tokens.count));
    fill_rows([&](std::int64_t p, float* c, float* s) { exact.fill(p, c, s); });
  } else {
    const detail::FloatPairs pairs = detail::float_pairs(plan, precision);
    const bool hf = precision == AnglePrecision::hf_float32;
    const auto fill = hf ? detail::fill_hf_row : detail::fill_ggml_row;
    fill_rows([&](std::int64_t p, float* c, float* s) { fill(pairs, factor, p, c, s); });
  }
  const std::size_t old_tokens = rows.row.size();
  rows.row.resize(old_tokens + positions.size());
  for (std::size_t t = 0; t < positions.size(); ++t) {
    rows.row[old_tokens + t] = static_cast<std::int32_t>(first_row) + tokens.number[t];
  }
}

/// The rows of a batch that one plan turns.
inline RotaryRows make_rotary_rows(const FrequencyPlan& plan,
                                   std::span<const std::int64_t> positions,
                                   AnglePrecision precision = AnglePrecision::exact) {
  RotaryRows rows;
  append_rotary_rows(rows, plan, positions, precision);
  return rows;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
