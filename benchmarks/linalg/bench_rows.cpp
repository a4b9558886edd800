// SPDX-License-Identifier: Apache-2.0
/// \file
/// Row operations, shapes rows x channels: RMSNorm against copying, SwiGLU against updating.

#include <cmath>

#include "ropewalk/linalg/rows.hpp"

#include "harness.hpp"
#include "measure/random_data.hpp"

namespace bench {
namespace {

struct RmsNorm {
  index_t rows, size;
  Buffer<float> x, weight, y;

  RmsNorm(index_t r, index_t s)
      : rows(r), size(s), x(random_floats(r * s, 1)), weight(random_floats(s, 2)), y(r * s) {}
  void run() {
    rmsnorm<simd::native>(x.data(), size, rows, size, weight.data(), 1e-5, y.data(), size);
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
        const double error = std::fabs(static_cast<double>(y[r * size + i]) - expected);
        worst = worse(worst, error / (std::fabs(expected) + 1e-30) * 0x1p24);
      }
    }
    return fault_of(worst, 4);  // what rmsnorm() promises, in 2^-24
  }
  Work work() const {
    const double bytes = 8 * static_cast<double>(rows * size);
    return {.bytes = bytes, .traffic = Traffic::copy, .working_set = bytes};
  }
};

struct SwiGlu {
  index_t rows, size;
  Buffer<float> before, gate, up;

  SwiGlu(index_t r, index_t s)
      : rows(r),
        size(s),
        before(random_floats(r * s, 3)),
        gate(random_floats(r * s, 3)),
        up(random_floats(r * s, 4)) {}
  void run() { swiglu<simd::native>(gate.data(), up.data(), size, rows, size); }
  std::string fault() {
    run();
    double worst = 0;
    for (index_t i = 0; i < rows * size; i += 97) {
      const double g = static_cast<double>(before[i]);
      const double expected = g / (1 + std::exp(-g)) * static_cast<double>(up[i]);
      const double error = std::fabs(static_cast<double>(gate[i]) - expected);
      worst = worse(worst, error / (std::fabs(expected) + 1e-30) * 0x1p24);
    }
    // Runs repeat in place: gates must not shrink to subnormal numbers, and silu(30) is 30.
    for (float& u : up.span()) u = 1;
    for (float& g : gate.span()) g = 30;
    return fault_of(worst, 8);
  }
  Work work() const {
    const double bytes = 12 * static_cast<double>(rows * size);
    return {.bytes = bytes, .traffic = Traffic::update, .working_set = bytes};
  }
};

bool add_all() {
  for (const auto& [rows, size] : {std::pair<index_t, index_t>{2048, 256}, {2048, 2048}}) {
    const std::string shape = std::to_string(rows) + "x" + std::to_string(size) + "/f32";
    add("linalg/rmsnorm/" + shape, [rows = rows, size = size] { return RmsNorm(rows, size); });
  }
  add("linalg/swiglu/96x688/f32", [] { return SwiGlu(96, 688); });
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
