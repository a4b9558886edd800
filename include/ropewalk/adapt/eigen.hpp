// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Views of Eigen matrices as tensors and of tensors as Eigen maps: no copy, no allocation.

#include <string>
#include <type_traits>
#include <utility>

#include <Eigen/Core>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

template <class M>
void take_dense(const Eigen::DenseBase<M>&);
template <class M>
void take_owner(const Eigen::PlainObjectBase<M>&);
/// Ref<const M> may hold a copy of what it was made from.
template <class M, int Options, class Stride>
void take_owner(const Eigen::Ref<const M, Options, Stride>&);

}  // namespace detail

/// What has its elements in memory: Matrix, Array, Map, Ref, a Block or the transpose of one.
/// Expressions, as in `a + b` or `2 * a`, have none: give them a name first, `const Rows c = a +
/// b`.
template <class M>
concept EigenInMemory = requires(std::remove_reference_t<M>& m) {
  detail::take_dense(m);
  m.data();
  m.innerStride();
};

/// A view of a temporary would outlive it: give the matrix a name first. Maps, blocks and
/// transposes are views already and may be temporary; what they look at has to live on.
template <class M>
concept EigenOutlivesView = std::is_lvalue_reference_v<M> || !requires(const M& m) {
  detail::take_owner(m);
};

/// The columns of a row may be adjacent in memory, as kernels need the channels of a head to be.
/// The columns of a column-major matrix are not: use Eigen::RowMajor, or keep the matrix as
/// (channels, tokens) and pass `m.transpose()`. Maps whose inner stride is not 1 are not either.
template <class M>
concept EigenAdjacentColumns = bool(std::remove_cvref_t<M>::IsRowMajor) &&
                               (int(std::remove_cvref_t<M>::InnerStrideAtCompileTime) == 1 ||
                                int(std::remove_cvref_t<M>::InnerStrideAtCompileTime) ==
                                    int(Eigen::Dynamic));

namespace detail {

/// float, or const float where the matrix may only be read.
template <class M>
using EigenElement =
    std::remove_pointer_t<decltype(std::declval<std::remove_reference_t<M>&>().data())>;

}  // namespace detail

/// The matrix as a tensor (rows, columns) of any strides, such as attention's lse: (heads,
/// queries). Of constant elements where the matrix is constant.
template <EigenInMemory M>
requires EigenOutlivesView<M>
auto view(M&& matrix) {
  return TensorView<detail::EigenElement<M>, 2>(matrix.data(), {matrix.rows(), matrix.cols()},
                                                {matrix.rowStride(), matrix.colStride()});
}

/// A matrix (tokens, num_heads * head_dim) as the tensor (tokens, num_heads, head_dim) that
/// rotate() and attention() take: column h * head_dim + c is channel c of head h. Writing to the
/// view writes to the matrix. A fused projection is viewed through its blocks:
/// `heads_view(qkv.leftCols(512), 8)`.
/// \throws Error(usage) when num_heads does not divide the columns, or when the matrix is a map
/// whose inner stride turns out not to be 1
template <EigenInMemory M>
requires EigenOutlivesView<M> && EigenAdjacentColumns<M>
auto heads_view(M&& matrix, index_t num_heads) {
  const index_t columns = matrix.cols();
  if (num_heads < 1 || columns % num_heads != 0) {
    fail({.kind = ErrorClass::usage,
          .where = "heads_view",
          .field = "num_heads",
          .found = std::to_string(num_heads),
          .expected = "a divisor of the matrix's " + std::to_string(columns) + " columns",
          .fix = "Give a matrix (tokens, num_heads * head_dim)"});
  }
  const index_t adjacent = matrix.innerStride(), head_dim = columns / num_heads;
  if (adjacent != 1 && columns > 1) {
    fail({.kind = ErrorClass::usage,
          .where = "heads_view",
          .field = "inner stride of the matrix",
          .found = std::to_string(adjacent),
          .expected = "1: the channels of a token lie side by side",
          .fix = "Copy the map into a row-major matrix, and view that"});
  }
  return HeadsView<detail::EigenElement<M>>(matrix.data(), {matrix.rows(), num_heads, head_dim},
                                            {matrix.outerStride(), head_dim, 1});
}

/// The dynamic row-major matrix of T's elements; T may be const.
template <class T>
using EigenRows = std::conditional_t<
    std::is_const_v<T>,
    const Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
    Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

/// A map of any strides.
template <class T>
using EigenMap =
    Eigen::Map<EigenRows<T>, Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;

/// A map whose rows are contiguous: Eigen vectorises what it computes with it.
template <class T>
using EigenRowsMap = Eigen::Map<EigenRows<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

/// The tensor as an Eigen matrix, whatever its strides.
template <class T>
EigenMap<T> eigen_map(TensorView<T, 2> x) {
  return EigenMap<T>(x.data(), x.extent(0), x.extent(1), {x.stride(0), x.stride(1)});
}

/// One head of a tensor (tokens, num_heads, head_dim) as a matrix (tokens, head_dim).
/// \throws Error(usage) for a head that is not there
template <class T>
EigenMap<T> eigen_map(HeadsView<T> x, index_t head) {
  require(head >= 0 && head < x.extent(1), "0 <= head < num_heads");
  return EigenMap<T>(x.data() + head * x.stride(1), x.extent(0), x.extent(2),
                     {x.stride(0), x.stride(2)});
}

/// The tensor as an Eigen matrix of contiguous rows.
/// \throws Error(usage) when the elements of a row are not adjacent: use eigen_map
template <class T>
EigenRowsMap<T> eigen_rows(TensorView<T, 2> x) {
  require(x.extent(1) <= 1 || x.stride(1) == 1,
          "a tensor whose rows are contiguous (stride 1); eigen_map takes any strides");
  return EigenRowsMap<T>(x.data(), x.extent(0), x.extent(1), Eigen::OuterStride<>(x.stride(0)));
}

/// A tensor (tokens, num_heads, head_dim) as a matrix (tokens, num_heads * head_dim), the inverse
/// of heads_view().
/// \throws Error(usage) when the heads of a token are not adjacent: use eigen_map, head by head
template <class T>
EigenRowsMap<T> eigen_rows(HeadsView<T> x) {
  require(
      (x.extent(2) <= 1 || x.stride(2) == 1) && (x.extent(1) <= 1 || x.stride(1) == x.extent(2)),
      "a tensor whose heads lie side by side; eigen_map takes one head of any strides");
  return EigenRowsMap<T>(x.data(), x.extent(0), x.extent(1) * x.extent(2),
                         Eigen::OuterStride<>(x.stride(0)));
}

}  // namespace ropewalk::inline ROPEWALK_ABI
