// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// PackedMatrix: a weight matrix in the order in which the micro-kernels read it.

#include <span>

#include "ropewalk/core/tensor.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Columns of a panel; a storage constant of the canonical arithmetic, the same for every ISA.
inline constexpr index_t panel_width = 64;
/// Widths of the last panel are multiples of this many columns.
inline constexpr index_t lane_count = 16;

constexpr index_t round_up(index_t n, index_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// The right-hand operand of C = A W^T for a logical matrix W (outputs, inputs), cut into panels of
/// 64 outputs: panel j holds, for each input k, W(64 j .. 64 j + 63, k) side by side. The last
/// panel is narrower (a multiple of 16, padded with zeros). A lossless bijection of W, so it may be
/// the only copy.
template <class T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// All zeros. (outputs, inputs)
  PackedMatrix(index_t outputs, index_t inputs)
      : outputs_(outputs),
        inputs_(inputs),
        storage_(checked_mul(round_up(outputs, lane_count), inputs, "packed matrix")) {}

  index_t outputs() const { return outputs_; }
  index_t inputs() const { return inputs_; }
  bool empty() const { return storage_.empty(); }
  index_t storage_size() const { return storage_.size(); }
  index_t num_panels() const { return (outputs_ + panel_width - 1) / panel_width; }
  /// Columns stored for panel j, also its row stride.
  index_t width_of_panel(index_t j) const {
    const index_t left = round_up(outputs_, lane_count) - j * panel_width;
    return left < panel_width ? left : panel_width;
  }
  /// (inputs, width_of_panel(j)), row-major.
  const T* panel(index_t j) const { return storage_.data() + j * panel_width * inputs_; }

  T& operator()(index_t output, index_t input) { return storage_[offset(output, input)]; }
  const T& operator()(index_t output, index_t input) const {
    return storage_[offset(output, input)];
  }
  /// Writes row `output` of the logical matrix. values: (inputs)
  void set_row(index_t output, std::span<const T> values) {
    for (index_t k = 0; k < inputs_; ++k) {
      (*this)(output, k) = values[static_cast<std::size_t>(k)];
    }
  }
  /// Reads row `output` of the logical matrix, as tied embeddings need it. values: (inputs)
  void get_row(index_t output, std::span<T> values) const {
    const index_t width = width_of_panel(output / panel_width);
    const T* p = panel(output / panel_width) + output % panel_width;
    for (index_t k = 0; k < inputs_; ++k) values[static_cast<std::size_t>(k)] = p[k * width];
  }

 private:
  index_t offset(index_t output, index_t input) const {
    const index_t j = output / panel_width;
    return j * panel_width * inputs_ + input * width_of_panel(j) + output % panel_width;
  }
  index_t outputs_ = 0;
  index_t inputs_ = 0;
  Buffer<T> storage_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
