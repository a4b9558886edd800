// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Attention in double, written as its formula: what every attention kernel is compared with.

#include <cmath>
#include <limits>

#include <Eigen/Core>

#include "ropewalk/attention/concepts.hpp"
#include "ropewalk/core/dtype.hpp"
#include "ropewalk/core/tensor.hpp"

namespace ropewalk::inline ROPEWALK_ABI::oracle {

/// Row-major, like every tensor here.
using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Exact, from any storage type.
template <class T>
double to_double(T x) {
  if constexpr (std::is_same_v<T, double>) {
    return x;
  } else {
    return static_cast<double>(to_float(x));
  }
}

/// Head h of x as a matrix. x: (tokens, num_heads, head_dim) -> (tokens, head_dim)
template <class T>
Matrix head_matrix(HeadsView<T> x, index_t h) {
  Matrix m(x.extent(0), x.extent(2));
  for (index_t t = 0; t < m.rows(); ++t) {
    for (index_t c = 0; c < m.cols(); ++c) m(t, c) = to_double(x(t, h, c));
  }
  return m;
}

struct AttentionResult {
  Tensor<double, 3> out;  ///< (queries, H, head_dim of v)
  Tensor<double, 2> lse;  ///< (H, queries), natural log of the sum of exp(logits)
};

/// For each query i and head h, with g = h / (H / K) the head of its keys and values:
///
///     s_j = softmax_scale <q_i^h, k_j^g>,   j visible to i
///     out_i^h = sum_j exp(s_j) v_j^g / sum_j exp(s_j),   lse_i^h = log sum_j exp(s_j)
///
/// A query that sees nothing gets output 0 and lse -inf.
/// \param q (queries, H, D)  \param k (keys, K, D)  \param v (keys, K, any head_dim)
/// \param query_offset  token index of query 0, where the keys of earlier tokens come from a cache
/// **Cost:** O(queries x keys x (D + 1)) time per head, one (queries, keys) matrix of doubles.
/// **Source:** arXiv:1706.03762, section 3.2.1; arXiv:2305.13245 for the groups.
template <class Q, class K, class V, AttentionMask M>
AttentionResult attention(HeadsView<Q> q, HeadsView<K> k, HeadsView<V> v, const M& mask,
                          double softmax_scale, index_t query_offset = 0) {
  const index_t queries = q.extent(0), keys = k.extent(0);
  const index_t num_heads = q.extent(1), num_key_value_heads = k.extent(1);
  require(k.extent(2) == q.extent(2), "k with the head_dim of q");
  require(v.extent(0) == keys && v.extent(1) == num_key_value_heads, "v with tokens, heads of k");
  require(num_key_value_heads > 0 && num_heads % num_key_value_heads == 0,
          "a number of key heads that divides the number of query heads");
  constexpr double infinity = std::numeric_limits<double>::infinity();

  AttentionResult result{.out = Tensor<double, 3>({queries, num_heads, v.extent(2)}),
                         .lse = Tensor<double, 2>({num_heads, queries})};
  const auto out = result.out.view();
  const auto lse = result.lse.view();
  for (index_t h = 0; h < num_heads; ++h) {
    const index_t g = h / (num_heads / num_key_value_heads);
    const Matrix values = head_matrix(v, g);  // (keys, Dv)
    Matrix s =
        softmax_scale * head_matrix(q, h) * head_matrix(k, g).transpose();  // (queries, keys)
    for (index_t i = 0; i < queries; ++i) {
      // Subtracting the largest logit keeps exp from overflowing. A NaN passes, so that it shows.
      double largest = -infinity;
      for (index_t j = 0; j < keys; ++j) {
        if (mask.visible(query_offset + i, j) && !(s(i, j) <= largest)) largest = s(i, j);
      }
      double sum = 0;
      for (index_t j = 0; j < keys; ++j) {
        const bool visible = largest != -infinity && mask.visible(query_offset + i, j);
        s(i, j) = visible ? std::exp(s(i, j) - largest) : 0;
        sum += s(i, j);
      }
      lse(h, i) = largest + std::log(sum);  // -inf + -inf where nothing is visible
      if (largest != -infinity) s.row(i) /= sum;
    }
    const Matrix o = s * values;  // (queries, Dv)
    for (index_t i = 0; i < queries; ++i) {
      for (index_t c = 0; c < o.cols(); ++c) out(i, h, c) = o(i, c);
    }
  }
  return result;
}

}  // namespace ropewalk::inline ROPEWALK_ABI::oracle
