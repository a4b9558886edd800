// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// RotaryRows: the cosines and sines that a batch needs, and which row each token uses.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ropewalk/core/checked.hpp"
#include "ropewalk/core/elementary.hpp"
#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// How an angle becomes a cosine.
///
/// **Error** of cos and sin, base 1e4: exact 3.1e-8 at every position up to 2^24; hf_float32 2e-3
/// at 32K, 6e-2 at 1M; ggml_float32 5e-3 and 2e-1 (tests/rope/test_rotary_rows.cpp).
enum class AnglePrecision {
  exact,         ///< 64-bit turns, double sine, one rounding: within 3.1e-8 up to position 2^24
  hf_float32,    ///< float(position) * float(inv_freq), as Hugging Face transformers
  ggml_float32,  ///< float recurrence theta *= base^(-2/d), divided by per-pair factors, as ggml
};

/// Rows of cos and sin, attention_factor included, shared by all heads and layers of a batch.
struct RotaryRows {
  index_t num_pairs = 0;
  std::vector<float> cos;         ///< (rows, num_pairs)
  std::vector<float> sin;         ///< (rows, num_pairs)
  std::vector<std::int32_t> row;  ///< (tokens) row of each token

  index_t num_rows() const {
    return num_pairs == 0 ? 0 : static_cast<index_t>(cos.size()) / num_pairs;
  }
};

namespace detail {

inline void append_exact_row(RotaryRows& rows, const FrequencyPlan& plan, std::int64_t position) {
  for (const std::uint64_t turns : plan.turns) {
    // Wraps: only the fraction of a turn matters, and negative positions turn back.
    const auto phase = static_cast<std::int64_t>(turns * static_cast<std::uint64_t>(position));
    const elementary::SinCos v = elementary::sincos_turns(phase);
    rows.cos.push_back(static_cast<float>(v.cos * plan.attention_factor));
    rows.sin.push_back(static_cast<float>(v.sin * plan.attention_factor));
  }
}

/// cos and sin of a float angle, each rounded to float, times the factor in float.
inline void append_float_angle(RotaryRows& rows, float angle, float factor) {
  const elementary::SinCos v = elementary::sincos(static_cast<double>(angle));
  rows.cos.push_back(static_cast<float>(v.cos) * factor);
  rows.sin.push_back(static_cast<float>(v.sin) * factor);
}

/// transformers, modeling_llama.py: inv_freq and position_ids in float, their product in float.
inline void append_hf_row(RotaryRows& rows, const FrequencyPlan& plan, std::int64_t position) {
  const auto factor = static_cast<float>(plan.attention_factor);
  for (const double w : plan.inv_freq) {
    append_float_angle(rows, static_cast<float>(position) * static_cast<float>(w), factor);
  }
}

/// ggml, ggml_rope_cache_init: theta = p, then theta *= theta_scale for each pair; a pair's own
/// frequency enters as the divisor that ggml calls freq_factors.
inline void append_ggml_row(RotaryRows& rows, const FrequencyPlan& plan, std::int64_t position) {
  const auto factor = static_cast<float>(plan.attention_factor);
  const auto d = static_cast<float>(plan.rotary_dim());
  const auto base = static_cast<double>(static_cast<float>(plan.rope_theta));
  const auto theta_scale =
      static_cast<float>(elementary::pow(base, static_cast<double>(-2.0f / d)));
  auto theta = static_cast<float>(position);
  double pair = 0;
  for (const double w : plan.inv_freq) {
    const double plain =
        elementary::pow(plan.rope_theta, -2 * pair, static_cast<double>(plan.rotary_dim()));
    // A frequency of 0 has an infinite divisor: the angle becomes 0.
    append_float_angle(rows, w == 0 ? 0.0f : theta / static_cast<float>(plain / w), factor);
    theta *= theta_scale;
    ++pair;
  }
}

}  // namespace detail

/// Appends the tokens of `positions`, turned by `plan`: token t of this call gets row
/// rows.row[old + t] of the tables. Tokens of one call with equal positions share a row. Several
/// plans may follow each other in one batch; they must have the same number of pairs.
/// positions: (tokens), any sign. A row depends on plan, position and precision alone.
///
/// **Cost:** memory linear in the tokens, whatever the positions; one sine and cosine per distinct
/// position and pair.
/// \throws Error(usage) when the plans' pairs differ or the table would exceed 2^31 - 1 rows.
inline void append_rotary_rows(RotaryRows& rows, const FrequencyPlan& plan,
                               std::span<const std::int64_t> positions,
                               AnglePrecision precision = AnglePrecision::exact) {
  require(plan.num_pairs() > 0, "a frequency plan with at least one pair");
  require(rows.num_pairs == 0 || rows.num_pairs == plan.num_pairs(),
          "plans with the same number of pairs in one batch");
  rows.num_pairs = plan.num_pairs();
  std::vector<std::int64_t> distinct(positions.begin(), positions.end());
  if (!std::is_sorted(distinct.begin(), distinct.end())) {
    std::sort(distinct.begin(), distinct.end());
  }
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  const index_t first_row = rows.num_rows();
  const index_t all_rows = first_row + static_cast<index_t>(distinct.size());
  require(all_rows <= std::numeric_limits<std::int32_t>::max(), "at most 2^31 - 1 rows");

  const auto elements = static_cast<std::size_t>(checked_mul(all_rows, rows.num_pairs, "rows"));
  rows.cos.reserve(elements);
  rows.sin.reserve(elements);
  for (const std::int64_t position : distinct) {
    switch (precision) {
      case AnglePrecision::exact:
        detail::append_exact_row(rows, plan, position);
        break;
      case AnglePrecision::hf_float32:
        detail::append_hf_row(rows, plan, position);
        break;
      case AnglePrecision::ggml_float32:
        detail::append_ggml_row(rows, plan, position);
        break;
    }
  }

  rows.row.reserve(rows.row.size() + positions.size());
  std::size_t at = 0;  // most tokens follow their predecessor, so the search is rarely needed
  for (const std::int64_t position : positions) {
    if (at + 1 < distinct.size() && distinct[at + 1] == position) {
      ++at;
    } else if (distinct[at] != position) {
      at = static_cast<std::size_t>(std::lower_bound(distinct.begin(), distinct.end(), position) -
                                    distinct.begin());
    }
    rows.row.push_back(static_cast<std::int32_t>(first_row + static_cast<index_t>(at)));
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
