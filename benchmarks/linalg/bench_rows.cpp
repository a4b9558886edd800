// SPDX-License-Identifier: Apache-2.0
/// \file
/// Row operations: RMSNorm, shapes rows x channels, against copying; SwiGLU fused with its two
/// products, shapes rows x outputs x inputs, against multiply-adds.

#include "ropewalk/linalg/rows.hpp"

#include "linalg/product.hpp"

namespace bench {
namespace {

/// Rounding of a result that is stored as T, in units of 2^-24.
template <class T>
inline constexpr double rounding = std::is_same_v<T, bf16> ? 0x1p16 : 0;

template <class T>
struct RmsNorm {
  index_t rows, size;
  Buffer<float> x, weight;
  Buffer<T> y;

  RmsNorm(index_t r, index_t s)
      : rows(r), size(s), x(random_floats(r * s, 1)), weight(random_floats(s, 2)), y(r * s) {}
  void run() {
    rmsnorm<simd::native>(x.data(), size, rows, size, weight.data(), 1e-5, 1.0f, y.data(), size);
  }
  std::string fault() {
    run();
    double worst = 0;
    for (const index_t r : {index_t{0}, rows / 2, rows - 1}) {
      double squares = 0;
      for (index_t i = 0; i < size; ++i) {
        squares += static_cast<double>(x[r * size + i]) * static_cast<double>(x[r * size + i]);
      }
      const double scale = 1 / std::sqrt(squares / static_cast<double>(size) + 1e-5);
      for (index_t i = 0; i < size; ++i) {
        const double expected =
            static_cast<double>(x[r * size + i]) * scale * static_cast<double>(weight[i]);
        const double error = std::fabs(static_cast<double>(to_float(y[r * size + i])) - expected);
        worst = worse(worst, error / (std::fabs(expected) + 1e-30) * 0x1p24);
      }
    }
    return fault_of(worst, 4 + rounding<T>);  // what rmsnorm() promises, in 2^-24
  }
  Work work() const {
    const double bytes = static_cast<double>(4 + sizeof(T)) * static_cast<double>(rows * size);
    return {.bytes = bytes, .traffic = Traffic::copy, .working_set = bytes};
  }
};

template <class T>
struct SwiGlu {
  ProductShape shape;
  index_t lda, ldo;
  Buffer<T> a, gate_rows, up_rows;
  PackedMatrix<T> gate, up;
  Buffer<T> out;  ///< (rows, outputs)
  Threads threads;

  SwiGlu(ProductShape s, index_t thread_count)
      : shape(s),
        lda(spread_stride<T>(s.inputs)),
        ldo(spread_stride<T>(s.outputs)),
        a(random_buffer<T>(s.rows * lda, 1)),
        gate_rows(random_buffer<T>(s.outputs * s.inputs, 2, deviation())),
        up_rows(random_buffer<T>(s.outputs * s.inputs, 3, deviation())),
        gate(packed(gate_rows, s.outputs, s.inputs)),
        up(packed(up_rows, s.outputs, s.inputs)),
        out(s.rows * ldo),
        threads(thread_count) {}
  void run(const Executor& executor) {
    share_rows<T>(executor, shape.rows, threads.count() == 1, [&](index_t first, index_t count) {
      with_instructions<T>([&]<class Arch>() {
        gemm_swiglu<Arch>(a.data() + first * lda, lda, count, gate, up, out.data() + first * ldo,
                          ldo);
      });
    });
  }
  std::string fault() {
    run(threads.executor());
    double worst = 0;
    for (index_t i = 0; i < 257; ++i) {
      const index_t r = (i * 101) % shape.rows, n = (i * 211 + i / 7) % shape.outputs;
      const auto [g, g_size] = exact_element(a, lda, gate_rows, shape.inputs, r, n);
      const auto [u, u_size] = exact_element(a, lda, up_rows, shape.inputs, r, n);
      const double silu = g / (1 + std::exp(-g)), expected = silu * u;
      // silu's slope is at most 1.1. The products may be off as in Operands::fault().
      const double depth = static_cast<double>(shape.inputs);
      const double allowed = depth * (1.1 * g_size * std::fabs(u) + u_size * std::fabs(silu)) +
                             (8 + rounding<T>)*std::fabs(expected) + 1e-6;
      const double error =
          std::fabs(static_cast<double>(to_float(out[r * ldo + n])) - expected) * 0x1p24;
      worst = worse(worst, error / allowed);
    }
    return fault_of(worst, 1);
  }
  Work work() const {
    return {.flops = 2 * shape.flops(),
            .executor = threads.executor(),
            .parts = row_blocks<T>(shape.rows),
            .bf16s = std::is_same_v<T, bf16>};
  }

 private:
  /// So that gates have about size 1.
  double deviation() const { return 1 / std::sqrt(static_cast<double>(shape.inputs)); }
};

template <class T>
void add_dtype() {
  for (const auto& [rows, size] : {std::pair<index_t, index_t>{2048, 256}, {2048, 2048}}) {
    const std::string shape = std::to_string(rows) + "x" + std::to_string(size);
    add("linalg/rmsnorm/" + shape + "/" + dtype_and_threads<T>(),
        [rows = rows, size = size] { return RmsNorm<T>(rows, size); });
  }
  for (const ProductShape s : {ProductShape{96, 688, 256}, {512, 688, 256}, {512, 1376, 512}}) {
    for (const index_t threads : {1, 2}) {
      if (threads == 2 && s.rows < 512) continue;
      add("linalg/swiglu/" + s.text() + "/" + dtype_and_threads<T>(threads),
          [=] { return SwiGlu<T>(s, threads); });
    }
  }
}

bool add_all() {
  add_dtype<float>();
  add_dtype<bf16>();
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
