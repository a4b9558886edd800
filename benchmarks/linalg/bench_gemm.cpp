// SPDX-License-Identifier: Apache-2.0
/// \file
/// C = A W^T, shapes rows x outputs x inputs: the ladder from three loops to register tiles, and
/// Eigen's product beside it.

#include <cmath>

#include <Eigen/Core>

#include "harness.hpp"
#include "measure/random_data.hpp"

namespace bench {
namespace {

struct Shape {
  index_t rows, outputs, inputs;

  std::string text() const {
    return std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs);
  }
  double flops() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(outputs) *
           static_cast<double>(inputs);
  }
};

/// Operands row by row, as the simple rungs and Eigen read them.
struct Operands {
  Shape shape;
  Buffer<float> a, w, c;  ///< (rows, inputs), (outputs, inputs), (rows, outputs padded to 16)
  index_t ldc;

  explicit Operands(Shape s)
      : shape(s),
        a(random_floats(s.rows * s.inputs, 1)),
        w(random_floats(s.outputs * s.inputs, 2)),
        c(s.rows * round_up(s.outputs, lane_count)),
        ldc(round_up(s.outputs, lane_count)) {}

  /// Largest error of a sample of C, in units of 2^-24 times the sum of the products' sizes: a
  /// chain of `inputs` additions may be off by `inputs` of them.
  std::string fault() const {
    double worst = 0;
    for (index_t i = 0; i < 257; ++i) {
      const index_t r = (i * 101) % shape.rows, n = (i * 211 + i / 7) % shape.outputs;
      double sum = 0, size = 0;
      for (index_t k = 0; k < shape.inputs; ++k) {
        const double p = static_cast<double>(a[r * shape.inputs + k]) *
                         static_cast<double>(w[n * shape.inputs + k]);
        sum += p;
        size += std::fabs(p);
      }
      worst = worse(worst, std::fabs(static_cast<double>(c[r * ldc + n]) - sum) / size * 0x1p24);
    }
    return fault_of(worst, static_cast<double>(shape.inputs));
  }
};

template <class Kernel>
struct Product {
  Operands x;
  PackedMatrix<float> packed;
  Kernel kernel;

  Product(Shape s, Kernel k) : x(s), packed(s.outputs, s.inputs), kernel(k) {
    for (index_t n = 0; n < s.outputs; ++n) {
      packed.set_row(n, x.w.span().subspan(static_cast<std::size_t>(n * s.inputs),
                                           static_cast<std::size_t>(s.inputs)));
    }
  }
  void run() { kernel(x, packed); }
  std::string fault() {
    run();
    return x.fault();
  }
  Work work() const { return {.flops = x.shape.flops()}; }
};

/// Rung 1: a dot product for each element. A chain of additions cannot use vectors, and every
/// element reads a whole row of both operands.
void naive(Operands& x, const PackedMatrix<float>&) {
  const index_t depth = x.shape.inputs;
  for (index_t r = 0; r < x.shape.rows; ++r) {
    for (index_t n = 0; n < x.shape.outputs; ++n) {
      float sum = 0;
      for (index_t k = 0; k < depth; ++k) sum += x.a[r * depth + k] * x.w[n * depth + k];
      x.c[r * x.ldc + n] = sum;
    }
  }
}

/// Rung 2: packed panels, one row of A at a time. 64 elements are computed side by side, so vectors
/// are full; but each vector of W that is loaded serves one multiply-add.
void row_by_row(Operands& x, const PackedMatrix<float>& w) {
  for (index_t r = 0; r < x.shape.rows; ++r) {
    gemm<simd::native>(x.a.data() + r * x.shape.inputs, x.shape.inputs, 1, w,
                       x.c.data() + r * x.ldc, x.ldc);
  }
}

/// Rung 3, the library's: tiles of several rows, so that a vector of W serves as many multiply-adds
/// as the tile has rows.
void tiled(Operands& x, const PackedMatrix<float>& w) {
  gemm<simd::native>(x.a.data(), x.shape.inputs, x.shape.rows, w, x.c.data(), x.ldc);
}

/// Eigen's product of the same row-major operands; it packs both at every call.
void eigen(Operands& x, const PackedMatrix<float>&) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> a(x.a.data(), x.shape.rows, x.shape.inputs);
  const Eigen::Map<const Matrix> w(x.w.data(), x.shape.outputs, x.shape.inputs);
  Eigen::Map<Matrix, 0, Eigen::OuterStride<>> c(x.c.data(), x.shape.rows, x.shape.outputs,
                                                Eigen::OuterStride<>(x.ldc));
  c.noalias() = a * w.transpose();
}

using Kernel = void (*)(Operands&, const PackedMatrix<float>&);

bool add_product(const std::string& op, Kernel kernel, Shape shape) {
  return add("linalg/" + op + "/" + shape.text() + "/f32",
             [=] { return Product<Kernel>(shape, kernel); });
}

bool add_all() {
  add_product("gemm_naive", naive, {512, 688, 256});
  for (const Shape s : {Shape{512, 688, 256}, {512, 2048, 2048}, {2048, 256, 256}}) {
    add_product("gemm_row_by_row", row_by_row, s);
    add_product("gemm_eigen", eigen, s);
    add_product("gemm", tiled, s);
  }
  // What a tile of tokens meets in the model: one head's width, a feed-forward layer, the head.
  for (const Shape s : {Shape{96, 64, 256}, {96, 1376, 512}, {96, 8192, 512}}) {
    add_product("gemm", tiled, s);
  }
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
