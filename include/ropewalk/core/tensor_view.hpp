// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Non-owning strided views of tensors, typed by the memory space they live in.

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Sizes, offsets and strides, in elements. Signed, like Eigen::Index.
using index_t = std::ptrdiff_t;
/// A token id of any vocabulary.
using TokenId = std::int32_t;

/// Memory spaces: a device view is another type, so that mixing them does not compile.
struct host {};

/// Half-open range of indices.
struct Interval {
  index_t begin = 0;
  index_t end = 0;
  constexpr index_t size() const { return end > begin ? end - begin : 0; }
  constexpr bool empty() const { return end <= begin; }
  friend constexpr bool operator==(Interval, Interval) = default;
};

/// A view of `Rank` dimensions; element (i, j, ..) lies at data[i * stride(0) + j * stride(1) +
/// ..].
template <class T, int Rank, class Space = host>
class TensorView {
 public:
  using value_type = T;
  static constexpr int rank = Rank;

  constexpr TensorView() = default;
  /// Contiguous, last index fastest.
  constexpr TensorView(T* data, std::array<index_t, std::size_t{Rank}> extents)
      : data_(data), extents_(extents) {
    index_t stride = 1;
    for (int r = Rank - 1; r >= 0; --r) {
      strides_[static_cast<std::size_t>(r)] = stride;
      stride *= extents_[static_cast<std::size_t>(r)];
    }
  }
  constexpr TensorView(T* data, std::array<index_t, std::size_t{Rank}> extents,
                       std::array<index_t, std::size_t{Rank}> strides)
      : data_(data), extents_(extents), strides_(strides) {}
  /// A view of T converts to a view of const T.
  template <class U>
  requires(std::is_same_v<const U, T> &&
           !std::is_same_v<U, T>) constexpr TensorView(const TensorView<U, Rank, Space>& other)
      : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

  constexpr T* data() const { return data_; }
  constexpr bool empty() const { return data_ == nullptr; }
  constexpr index_t extent(int r) const { return extents_[static_cast<std::size_t>(r)]; }
  constexpr index_t stride(int r) const { return strides_[static_cast<std::size_t>(r)]; }
  constexpr const std::array<index_t, std::size_t{Rank}>& extents() const { return extents_; }
  constexpr const std::array<index_t, std::size_t{Rank}>& strides() const { return strides_; }
  constexpr index_t size() const {
    index_t n = 1;
    for (const index_t e : extents_) n *= e;
    return n;
  }

  template <class... I>
  requires(sizeof...(I) == Rank && std::is_same_v<Space, host>) constexpr T& operator()(
      I... index) const {
    index_t offset = 0;
    int r = 0;
    ((offset += static_cast<index_t>(index) * strides_[static_cast<std::size_t>(r++)]), ...);
    return data_[offset];
  }
  /// The sub-view at index i of the first dimension.
  constexpr auto operator[](index_t i) const requires(Rank > 1) {
    std::array<index_t, std::size_t{Rank - 1}> e{}, s{};
    for (std::size_t r = 1; r < Rank; ++r) e[r - 1] = extents_[r], s[r - 1] = strides_[r];
    return TensorView<T, Rank - 1, Space>(data_ + i * strides_[0], e, s);
  }
  /// Rows [range.begin, range.end) of the first dimension.
  constexpr TensorView slice(Interval range) const {
    TensorView v = *this;
    v.data_ += range.begin * strides_[0];
    v.extents_[0] = range.size();
    return v;
  }

 private:
  T* data_ = nullptr;
  std::array<index_t, std::size_t{Rank}> extents_{};
  std::array<index_t, std::size_t{Rank}> strides_{};
};

/// (tokens, num_heads, head_dim)
template <class T, class Space = host>
using HeadsView = TensorView<T, 3, Space>;

}  // namespace ropewalk::inline ROPEWALK_ABI
