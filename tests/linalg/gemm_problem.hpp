// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Operands of matrix products in exact-size memory, and the fma chains that the products must be.

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "ropewalk/linalg/gemm.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

namespace ropewalk {

/// One step of the chain as the kernels of T take it: a float, or a pair, odd element first.
template <class T>
inline float chain_step(const float* a, const float* b, index_t k, index_t depth, float sum) {
  if constexpr (std::is_same_v<T, float>) {
    return std::fma(a[k], b[k], sum);
  } else {
    const bool odd = k + 1 < depth;
    sum = std::fma(odd ? a[k + 1] : 0.0f, odd ? b[k + 1] : 0.0f, sum);
    return std::fma(a[k], b[k], sum);
  }
}

/// The chain over all of [0, depth), from `sum`.
template <class T>
inline float chain(const float* a, const float* b, index_t depth, float sum = 0) {
  for (index_t k = 0; k < depth; k += depth_group<T>) sum = chain_step<T>(a, b, k, depth, sum);
  return sum;
}

/// The same as matrix tiles add up: groups of 32, each c + (chain of even elements + of odd ones).
inline float tile_sum(const float* a, const float* b, index_t depth, float sum = 0) {
  for (index_t k = 0; k < depth; k += 32) {
    float even = 0, odd = 0;
    for (index_t i = k; i < std::min(depth, k + 32); i += 2) {
      even = std::fma(a[i], b[i], even);
      if (i + 1 < depth) odd = std::fma(a[i + 1], b[i + 1], odd);
    }
    sum += even + odd;
  }
  return sum;
}

/// The sum that products of T by instruction sets of Sums must be, continued from `sum`.
template <class T, class Sums>
inline float continued_sum(const float* a, const float* b, index_t depth, float sum) {
  if constexpr (std::is_same_v<Sums, SumsOfTiles>) {
    return tile_sum(a, b, depth, sum);
  } else {
    return chain<T>(a, b, depth, sum);
  }
}
template <class T, class Sums>
inline float sum_of(const float* a, const float* b, index_t depth) {
  return continued_sum<T, Sums>(a, b, depth, 0);
}

/// Logical matrices as floats that T holds exactly. a: (rows, depth), w: (outputs, depth)
template <class T>
struct GemmProblem {
  index_t rows, outputs, depth;
  std::vector<float> a, w;

  GemmProblem(index_t num_rows, index_t num_outputs, index_t inputs)
      : rows(num_rows),
        outputs(num_outputs),
        depth(inputs),
        a(rounded(normal_floats(rows * depth, 1))),
        w(rounded(normal_floats(outputs * depth, 2))) {}

  static std::vector<float> rounded(std::vector<float> x) {
    for (float& v : x) v = to_float(simd::rounded_to<T>(v));
    return x;
  }
  const float* row(index_t r) const { return a.data() + r * depth; }
  const float* output(index_t n) const { return w.data() + n * depth; }

  /// The first `some` outputs and `k` inputs.
  PackedMatrix<T> packed(index_t some, index_t k) const {
    PackedMatrix<T> m(some, k);
    std::vector<T> values(static_cast<std::size_t>(k));
    for (index_t n = 0; n < some; ++n) {
      for (index_t i = 0; i < k; ++i) {
        values[static_cast<std::size_t>(i)] = simd::rounded_to<T>(output(n)[i]);
      }
      m.set_row(n, values);
    }
    return m;
  }
  PackedMatrix<T> packed() const { return packed(outputs, depth); }
};

/// The first rows and inputs of a problem as the left operand, `offset` elements past alignment.
/// What lies between rows is NaN, and nothing lies behind the last: whoever reads it is seen.
template <class T>
struct LeftOperand {
  index_t offset, ld;
  Buffer<T> storage;

  LeftOperand(const GemmProblem<T>& p, index_t rows, index_t k, index_t shift, index_t gap)
      : offset(shift),
        ld(round_up(k, depth_group<T>) + gap),
        storage(offset + std::max<index_t>(rows * ld - gap, 0)) {
    for (T& x : storage.span()) x = simd::rounded_to<T>(std::numeric_limits<float>::quiet_NaN());
    for (index_t r = 0; r < rows; ++r) {
      for (index_t i = 0; i < ld - gap; ++i) {
        storage[offset + r * ld + i] = simd::rounded_to<T>(i < k ? p.row(r)[i] : 0.0f);
      }
    }
  }
  const T* data() const { return storage.data() + offset; }
};

inline bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}
inline bool same_bits(bf16 a, bf16 b) { return a == b; }

}  // namespace ropewalk
