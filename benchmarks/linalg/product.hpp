// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// C = A W^T as a problem: operands, their check, their division among threads.

#include <algorithm>
#include <cmath>

#include "ropewalk/linalg/gemm.hpp"

#include "harness.hpp"
#include "measure/random_data.hpp"

namespace bench {

struct ProductShape {
  index_t rows, outputs, inputs;

  std::string text() const {
    return std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs);
  }
  double flops() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(outputs) *
           static_cast<double>(inputs);
  }
};

/// The shapes that are compared with other libraries.
inline constexpr ProductShape compared_shapes[] = {
    {512, 688, 256}, {512, 2048, 2048}, {2048, 256, 256}};

/// Element (r, n) of A W^T in double, and the sum of its terms' sizes. a: row stride lda
struct ExactElement {
  double sum = 0, size = 0;
};
template <class T>
ExactElement exact_element(const Buffer<T>& a, index_t lda, const Buffer<T>& w, index_t inputs,
                           index_t r, index_t n) {
  ExactElement exact;
  for (index_t k = 0; k < inputs; ++k) {
    const double p = static_cast<double>(to_float(a[r * lda + k])) *
                     static_cast<double>(to_float(w[n * inputs + k]));
    exact.sum += p;
    exact.size += std::fabs(p);
  }
  return exact;
}

/// Operands row by row, as the simple rungs and other libraries read them. Row strides of A and C
/// are those of a forward pass.
template <class T>
struct Operands {
  ProductShape shape;
  index_t lda, ldc;
  Buffer<T> a, w;  ///< (rows, inputs), (outputs, inputs)
  Buffer<T> c;     ///< (rows, outputs)

  explicit Operands(ProductShape s)
      : shape(s),
        lda(spread_stride<T>(s.inputs)),
        ldc(spread_stride<T>(s.outputs)),
        a(random_buffer<T>(s.rows * lda, 1)),
        w(random_buffer<T>(s.outputs * s.inputs, 2)),
        c(s.rows * ldc) {}

  /// Largest error of a sample of C, in units of 2^-24 times the sum of the products' sizes: a
  /// chain of `inputs` additions may be off by `inputs` of them, and bf16 by its rounding.
  std::string fault() const {
    double worst = 0;
    for (index_t i = 0; i < 257; ++i) {
      const index_t r = (i * 101) % shape.rows, n = (i * 211 + i / 7) % shape.outputs;
      const auto [sum, size] = exact_element(a, lda, w, shape.inputs, r, n);
      worst = worse(worst,
                    std::fabs(static_cast<double>(to_float(c[r * ldc + n])) - sum) / size * 0x1p24);
    }
    const double rounding = std::is_same_v<T, bf16> ? 0x1p15 : 0;
    return fault_of(worst, static_cast<double>(shape.inputs) + rounding);
  }
};

/// A logical matrix (outputs, inputs), packed.
template <class T>
PackedMatrix<T> packed(const Buffer<T>& w, index_t outputs, index_t inputs) {
  PackedMatrix<T> out(outputs, inputs);
  for (index_t n = 0; n < outputs; ++n) {
    out.set_row(n, w.span().subspan(static_cast<std::size_t>(n * inputs),
                                    static_cast<std::size_t>(inputs)));
  }
  return out;
}

/// Rows that a product of T takes at once at the most.
template <class T>
inline constexpr index_t block_rows = std::is_same_v<T, bf16> ? 192 : gemm_rows;

/// f(first, count) of the rows of a worker. A single thread's shares are blocks as gemm() makes
/// them itself; several threads' are as even as tiles of registers allow.
template <class T, class F>
void share_rows(const Executor& executor, index_t rows, bool one_thread, F&& f) {
  const index_t tile = std::is_same_v<T, bf16> ? 32 : 6;
  const index_t unit = one_thread ? block_rows<T> : tile, units = (rows + unit - 1) / unit;
  executor.run([&](index_t worker, index_t workers) {
    const index_t first = units * worker / workers * unit;
    const index_t end = std::min(rows, units * (worker + 1) / workers * unit);
    if (first < end) f(first, end - first);
  });
}

/// Shares of one thread's rows.
template <class T>
index_t row_blocks(index_t rows) {
  return (rows + block_rows<T> - 1) / block_rows<T>;
}

}  // namespace bench
