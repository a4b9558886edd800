// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Dynamic NTK: NTK-aware scaling by what the sequence needs beyond the trained length.

#include "ropewalk/rope/ntk_aware.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The NTK-aware frequencies of scale alpha(T) = s T / L - (s - 1) for T > L, plain ones up to L.
/// T is the true length of the sequence; shorter ones count as L, because alpha would fall below 1
/// and even below 0. A factor of 1 still adapts: alpha = T / L.
/// Source: emozilla (2023); Hugging Face rope_type "dynamic", where L is max_position_embeddings.
struct DynamicNtk {
  double rope_theta = 10000;                          ///< b
  double factor = 1;                                  ///< s
  std::int64_t original_max_position_embeddings = 0;  ///< L, tokens; has no default

  static constexpr std::string_view name = "dynamic";
  friend bool operator==(const DynamicNtk&, const DynamicNtk&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
    visit(factor_field, self.factor);
    visit(original_length_field, self.original_max_position_embeddings);
  }
  void check(RotaryShape shape) const {
    check_fields(*this);
    check_ntk_shape(name, shape);
  }
  /// alpha(T) >= 1, exactly 1 for T <= L. Written as 1 + s (T - L) / L, which cancels nothing.
  double scale(std::int64_t seq_len) const {
    const std::int64_t beyond = length_key(seq_len) - original_max_position_embeddings;
    const double share =
        static_cast<double>(beyond) / static_cast<double>(original_max_position_embeddings);
    return elementary::fma(factor, share, 1.0);
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    const double alpha = scale(shape.seq_len);
    index_t pair = 0;
    for (double& w : inv_freq) w = ntk_frequency(rope_theta, alpha, pair++, shape.rotary_dim);
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t seq_len) const {
    return seq_len > original_max_position_embeddings ? seq_len : original_max_position_embeddings;
  }
};
static_assert(FrequencyPolicy<DynamicNtk>);

}  // namespace ropewalk::inline ROPEWALK_ABI
