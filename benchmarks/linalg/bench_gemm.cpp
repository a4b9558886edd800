// SPDX-License-Identifier: Apache-2.0
/// \file
/// C = A W^T, shapes rows x outputs x inputs: the ladder from three loops to register tiles, and
/// Eigen's product beside it.

#include <Eigen/Core>

#include "linalg/product.hpp"

namespace bench {
namespace {

/// What a rung does with rows [first, first + count).
template <class T>
using Kernel = void (*)(Operands<T>&, const PackedMatrix<T>&, index_t first, index_t count);

template <class T>
struct Product {
  Operands<T> x;
  PackedMatrix<T> w;
  Kernel<T> kernel;
  bool divisible;
  Threads threads;

  Product(ProductShape s, Kernel<T> k, bool can_be_divided, index_t thread_count)
      : x(s),
        w(packed(x.w, s.outputs, s.inputs)),
        kernel(k),
        divisible(can_be_divided),
        threads(thread_count) {}
  void run(const Executor& executor) {
    share_rows<T>(executor, x.shape.rows, threads.count() == 1,
                  [&](index_t first, index_t count) { kernel(x, w, first, count); });
  }
  std::string fault() {
    run(threads.executor());
    return x.fault();
  }
  Work work() const {
    return {.flops = x.shape.flops(),
            .executor = threads.executor(),
            .parts = divisible ? row_blocks<T>(x.shape.rows) : 1,
            .bf16s = std::is_same_v<T, bf16>};
  }
};

/// Rung 1: a dot product for each element. A chain of additions cannot use vectors, and every
/// element reads a whole row of both operands.
void naive(Operands<float>& x, const PackedMatrix<float>&, index_t first, index_t count) {
  const index_t depth = x.shape.inputs;
  for (index_t r = first; r < first + count; ++r) {
    for (index_t n = 0; n < x.shape.outputs; ++n) {
      float sum = 0;
      for (index_t k = 0; k < depth; ++k) sum += x.a[r * x.lda + k] * x.w[n * depth + k];
      x.c[r * x.ldc + n] = sum;
    }
  }
}

/// Rung 2: packed panels, one row of A at a time. 64 elements are computed side by side, so vectors
/// are full; but each vector of W that is loaded serves one multiply-add.
void row_by_row(Operands<float>& x, const PackedMatrix<float>& w, index_t first, index_t count) {
  for (index_t r = first; r < first + count; ++r) {
    gemm<simd::native>(x.a.data() + r * x.lda, x.lda, 1, w, x.c.data() + r * x.ldc, x.ldc);
  }
}

/// Rung 3, the library's: tiles of several rows, so that a vector of W serves as many multiply-adds
/// as the tile has rows.
template <class T>
void tiled(Operands<T>& x, const PackedMatrix<T>& w, index_t first, index_t count) {
  with_instructions<T>([&]<class Arch>() {
    const T* a = x.a.data() + first * x.lda;
    T* c = x.c.data() + first * x.ldc;
    if constexpr (std::is_same_v<T, float>) {
      gemm<Arch>(a, x.lda, count, w, c, x.ldc);
    } else {  // as other libraries' products: the result is of the operands' type
      multiply_packed<Arch>(a, x.lda, count, w, StoreRounded<Arch, T>{c, x.ldc});
    }
  });
}

/// Eigen's product of the same row-major operands; it packs both at every call.
void eigen(Operands<float>& x, const PackedMatrix<float>&, index_t first, index_t count) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix, 0, Eigen::OuterStride<>> a(
      x.a.data() + first * x.lda, count, x.shape.inputs, Eigen::OuterStride<>(x.lda));
  const Eigen::Map<const Matrix> w(x.w.data(), x.shape.outputs, x.shape.inputs);
  Eigen::Map<Matrix, 0, Eigen::OuterStride<>> c(x.c.data() + first * x.ldc, count, x.shape.outputs,
                                                Eigen::OuterStride<>(x.ldc));
  c.noalias() = a * w.transpose();
}

template <class T>
bool add_product(const std::string& op, Kernel<T> kernel, ProductShape shape, bool divisible,
                 index_t threads = 1) {
  return add("linalg/" + op + "/" + shape.text() + "/" + dtype_and_threads<T>(threads),
             [=] { return Product<T>(shape, kernel, divisible, threads); });
}

bool add_all() {
  add_product<float>("gemm_naive", naive, {512, 688, 256}, true);
  for (const ProductShape s : compared_shapes) {
    add_product<float>("gemm_row_by_row", row_by_row, s, true);
    add_product<float>("gemm_eigen", eigen, s, false);
    for (const index_t threads : {1, 2}) {
      add_product<float>("gemm", tiled<float>, s, true, threads);
      add_product<bf16>("gemm", tiled<bf16>, s, true, threads);
    }
  }
  // What a tile of tokens meets in the model: one head's width, a feed-forward layer, the head.
  for (const ProductShape s : {ProductShape{96, 64, 256}, {96, 1376, 512}, {96, 8192, 512}}) {
    add_product<float>("gemm", tiled<float>, s, true);
    add_product<bf16>("gemm", tiled<bf16>, s, true);
  }
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
