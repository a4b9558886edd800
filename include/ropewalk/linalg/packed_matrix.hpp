// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// PackedMatrix: a weight matrix in the order in which the micro-kernels read it.

#include <span>
#include <type_traits>

#include "ropewalk/core/dtype.hpp"
#include "ropewalk/core/tensor.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Columns of a panel; a storage constant of the canonical arithmetic, the same for every ISA.
inline constexpr index_t panel_width = 64;
/// Widths of the last panel are multiples of this many columns.
inline constexpr index_t lane_count = 16;

constexpr index_t round_up(index_t n, index_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// Row stride, in elements, of rows that products read or write: an odd number of cache lines. Rows
/// a power of two apart share few sets of the L1 cache, and loads wait for stores whose addresses
/// end in the same 12 bits; products took a tenth longer (benchmarks/README.md).
template <class T = float>
constexpr index_t spread_stride(index_t columns) {
  constexpr auto line = static_cast<index_t>(storage_alignment / sizeof(T));
  return ((columns + line - 1) / line | 1) * line;
}

/// Bytes that are taken to stay in the L2 cache when they are read again and again. Free.
inline constexpr index_t kept_bytes = index_t{1} << 19;

/// Neighbours along the inner dimension that lie side by side in a panel: the pairs of the bf16 dot
/// product, else single elements.
template <class T>
inline constexpr index_t depth_group = std::is_same_v<T, bf16> ? 2 : 1;

/// The right-hand operand of C = A W^T for a logical matrix W (outputs, inputs), cut into panels of
/// 64 outputs: panel j holds, for each input k, W(64 j .. 64 j + 63, k) side by side. The last
/// panel is narrower (a multiple of 16, padded with zeros). For bf16, inputs 2 k and 2 k + 1 of
/// each output are neighbours, and an odd number of inputs is padded with zeros. A lossless
/// bijection of W, so it may be the only copy.
template <class T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// All zeros. (outputs, inputs)
  PackedMatrix(index_t outputs, index_t inputs)
      : outputs_(outputs),
        inputs_(inputs),
        storage_(checked_mul(round_up(outputs, lane_count), round_up(inputs, depth_group<T>),
                             "packed matrix")) {}

  index_t outputs() const { return outputs_; }
  index_t inputs() const { return inputs_; }
  /// Inputs as stored: padded to pairs for bf16. Rows of the left operand are padded likewise.
  index_t depth() const { return round_up(inputs_, depth_group<T>); }
  bool empty() const { return storage_.empty(); }
  index_t storage_size() const { return storage_.size(); }
  index_t num_panels() const { return (outputs_ + panel_width - 1) / panel_width; }
  /// Columns stored for panel j; its rows are depth_group times as long.
  index_t width_of_panel(index_t j) const {
    const index_t left = round_up(outputs_, lane_count) - j * panel_width;
    return left < panel_width ? left : panel_width;
  }
  /// (depth / depth_group, width_of_panel(j), depth_group), row-major.
  const T* panel(index_t j) const { return storage_.data() + j * panel_width * depth(); }
  T* panel(index_t j) { return storage_.data() + j * panel_width * depth(); }
  /// All elements in the order in which they are stored, padding included: for what is done to each
  /// alike.
  std::span<T> storage() { return storage_.span(); }
  std::span<const T> storage() const { return storage_.span(); }

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
    each_of_row(output, [&](std::size_t k, const T& x) { values[k] = x; });
  }
  /// As above, as floats.
  void get_row(index_t output, std::span<float> values) const requires(!std::is_same_v<T, float>) {
    each_of_row(output, [&](std::size_t k, const T& x) { values[k] = to_float(x); });
  }

 private:
  template <class F>
  void each_of_row(index_t output, F&& f) const {
    const index_t row = width_of_panel(output / panel_width) * depth_group<T>;
    const T* p = panel(output / panel_width) + output % panel_width * depth_group<T>;
    for (index_t k = 0; k < inputs_; ++k) {
      f(static_cast<std::size_t>(k), p[k / depth_group<T> * row + k % depth_group<T>]);
    }
  }
  index_t offset(index_t output, index_t input) const {
    const index_t j = output / panel_width;
    constexpr index_t group = depth_group<T>;
    return j * panel_width * depth() + input / group * (width_of_panel(j) * group) +
           output % panel_width * group + input % group;
  }
  index_t outputs_ = 0;
  index_t inputs_ = 0;
  Buffer<T> storage_;
};

/// W^T packed: the right-hand operand of the products dX = dY W that carry gradients back through
/// C = A W^T.
template <class T>
PackedMatrix<T> transposed(const PackedMatrix<T>& w) {
  PackedMatrix<T> out(w.inputs(), w.outputs());
  for (index_t n = 0; n < w.outputs(); ++n) {
    for (index_t k = 0; k < w.inputs(); ++k) out(k, n) = w(n, k);
  }
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
