// SPDX-License-Identifier: Apache-2.0
/// \file
/// Gradients of weights, dW += dY^T X, shapes tokens x outputs x inputs; operands lie beyond the L2
/// cache, as in training.

#include "ropewalk/linalg/weight_gradient.hpp"

#include "linalg/product.hpp"

namespace bench {
namespace {

template <class T>
struct WeightGradient {
  ProductShape shape;
  index_t ldx, lddy;
  Buffer<T> x;
  Buffer<float> dy;
  PackedMatrix<float> gradient;
  Threads threads;

  WeightGradient(ProductShape s, index_t thread_count)
      : shape(s),
        ldx(spread_stride<T>(s.inputs)),
        lddy(spread_stride(s.outputs)),
        x(random_buffer<T>(s.rows * ldx, 1)),
        dy(random_floats(s.rows * lddy, 2)),
        gradient(s.outputs, s.inputs),
        threads(thread_count) {
    for (index_t t = 0; t < s.rows; ++t) {
      std::fill_n(dy.data() + t * lddy + s.outputs, lddy - s.outputs, 0.0f);
    }
  }
  index_t tasks() const { return (gradient.num_panels() + gradient_panels - 1) / gradient_panels; }
  void run(const Executor& executor) {
    for_each_in_runs(executor, tasks(), [&](index_t task, index_t) {
      const index_t first = task * gradient_panels;
      with_instructions<T>([&]<class Arch>() {
        add_weight_gradient<Arch>(
            x.data(), ldx, dy.data() + first * panel_width, lddy, shape.rows, gradient,
            {first, std::min(first + gradient_panels, gradient.num_panels())});
      });
    });
  }
  /// A chain of `rows` additions may be off by as many units of 2^-24 of its terms' sizes; bf16
  /// also by the rounding of dy.
  std::string fault() {
    run(threads.executor());
    double worst = 0;
    for (index_t i = 0; i < 97; ++i) {
      const index_t n = (i * 101) % shape.outputs, k = (i * 211 + i / 7) % shape.inputs;
      double sum = 0, size = 0;
      for (index_t t = 0; t < shape.rows; ++t) {
        const double p =
            static_cast<double>(dy[t * lddy + n]) * static_cast<double>(to_float(x[t * ldx + k]));
        sum += p;
        size += std::fabs(p);
      }
      worst = worse(worst, std::fabs(static_cast<double>(gradient(n, k)) - sum) / size * 0x1p24);
    }
    const double rounding = std::is_same_v<T, bf16> ? 0x1p15 : 0;
    return fault_of(worst, static_cast<double>(shape.rows) + rounding);
  }
  Work work() const {
    return {.flops = shape.flops(),
            .executor = threads.executor(),
            .parts = tasks(),
            .bf16s = std::is_same_v<T, bf16>};
  }
};

template <class T>
bool add_all() {
  for (const ProductShape& s : {ProductShape{8192, 128, 128}, ProductShape{8192, 344, 128},
                                ProductShape{8192, 128, 344}, ProductShape{8192, 512, 512}}) {
    for (const index_t threads : {1, 2}) {
      add("linalg/weight_gradient/" + s.text() + "/" + dtype_and_threads<T>(threads),
          [=] { return WeightGradient<T>(s, threads); });
    }
  }
  return true;
}

[[maybe_unused]] const bool added = add_all<float>() && add_all<bf16>();

}  // namespace
}  // namespace bench
