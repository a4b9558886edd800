// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/linalg/weight_gradient.hpp"

#include "linalg/gemm_problem.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

TEST_CASE("linalg/weight_gradient: dW has W's order, one fma chain over tokens an element") {
  for_each_arch([&]<class Arch>() {
    for (const auto& [outputs, inputs] : {std::pair{1, 1}, {16, 7}, {65, 13}, {130, 40}}) {
      constexpr index_t tokens = 173;  // several blocks
      const index_t width = round_up(outputs, lane_count);
      const auto x = normal_floats(tokens * inputs, 1);
      auto dy = normal_floats(tokens * width, 2);
      for (std::size_t i = 0; i < dy.size(); ++i) {
        if (static_cast<index_t>(i) % width >= outputs) dy[i] = 0;
      }
      PackedMatrix<float> gradient(outputs, inputs);
      const index_t first_run = 20;  // two calls make one chain
      for (index_t j = 0; j < gradient.num_panels(); ++j) {
        const float* panel = dy.data() + j * panel_width;
        add_weight_gradient<Arch>(x.data(), inputs, panel, width, first_run, gradient, {j, j + 1});
      }
      // The other call takes all panels.
      add_weight_gradient<Arch>(x.data() + first_run * inputs, inputs,
                                dy.data() + first_run * width, width, tokens - first_run, gradient,
                                {0, gradient.num_panels()});
      index_t wrong = 0;
      for (index_t n = 0; n < outputs; ++n) {
        for (index_t k = 0; k < inputs; ++k) {
          float sum = 0;
          for (index_t t = 0; t < tokens; ++t) {
            sum = std::fma(x[static_cast<std::size_t>(t * inputs + k)],
                           dy[static_cast<std::size_t>(t * width + n)], sum);
          }
          wrong += !same_bits(gradient(n, k), sum);
        }
      }
      CHECK(wrong == 0);
      for (index_t n = 0; n < outputs; ++n) {
        for (index_t k = 0; k < inputs; ++k) gradient(n, k) = 0;
      }
      for (const float w : gradient.storage()) CHECK(w == 0);
    }
  });
}

TEST_CASE("linalg/weight_gradient: panels of the transpose, at every remainder") {
  for_each_arch([&]<class Arch>() {
    for (const auto& [outputs, inputs] :
         {std::pair{1, 1}, {16, 16}, {17, 80}, {100, 70}, {64, 129}}) {
      PackedMatrix<float> w(outputs, inputs), out(inputs, outputs);
      for (index_t n = 0; n < outputs; ++n) {
        for (index_t k = 0; k < inputs; ++k) w(n, k) = static_cast<float>(n * 1000 + k);
      }
      for (index_t j = 0; j < out.num_panels(); ++j) transpose_panel<Arch>(w, out, j);
      const PackedMatrix<float> right = transposed(w);
      CHECK(std::ranges::equal(out.storage(), right.storage()));
    }
  });
}

TEST_CASE("linalg/weight_gradient: a product over some of the inputs is added") {
  for_each_arch([&]<class Arch>() {
    const index_t rows = 101, outputs = 70, inputs = 50, ldc = 80;
    const auto a = normal_floats(rows * 20, 1);
    PackedMatrix<float> w(outputs, inputs);
    const auto values = normal_floats(outputs * inputs, 2);
    for (index_t n = 0; n < outputs; ++n) {
      for (index_t k = 0; k < inputs; ++k) w(n, k) = values[static_cast<std::size_t>(n * 50 + k)];
    }
    auto c = normal_floats(rows * ldc, 3);
    const auto before = c;
    gemm_add_inputs<Arch>(a.data(), 20, rows, w, {17, 37}, c.data(), ldc);
    index_t wrong = 0;
    for (index_t r = 0; r < rows; ++r) {
      for (index_t n = 0; n < outputs; ++n) {
        float sum = 0;
        for (index_t k = 0; k < 20; ++k) {
          sum = std::fma(a[static_cast<std::size_t>(r * 20 + k)], w(n, 17 + k), sum);
        }
        const auto at = static_cast<std::size_t>(r * ldc + n);
        wrong += !same_bits(c[at], before[at] + sum);
      }
    }
    CHECK(wrong == 0);
  });
}

namespace {

float rounded(float x) { return to_float(rounded_to<bf16>(x)); }

PackedMatrix<float> normal_matrix(index_t outputs, index_t inputs, std::uint32_t stream) {
  PackedMatrix<float> w(outputs, inputs);
  const auto values = normal_floats(outputs * inputs, stream);
  for (index_t n = 0; n < outputs; ++n) {
    for (index_t k = 0; k < inputs; ++k) {
      w(n, k) = values[static_cast<std::size_t>(n * inputs + k)];
    }
  }
  return w;
}

// Exact chains are held against double sums too: of the rounded operands, which each of the fewer
// than `tokens` additions changes by at most 2^-24 of the partial sum, itself below the sum of
// magnitudes.
template <class Sums>
void check_bf16() {
  for_each_arch<Sums>([&]<class Arch>() {
    for (const auto& shape : {std::pair{1, 1}, {16, 7}, {65, 13}, {130, 113}}) {
      const index_t outputs = shape.first, inputs = shape.second;
      for (const auto& calls : {std::pair{0, 1}, {1, 2}, {5, 38}, {20, 37}, {2, 517}}) {
        const index_t first_run = calls.first, tokens = calls.second;
        const index_t width = round_up(outputs, lane_count), ldx = inputs + 3, lddy = width + 5;
        const auto x = normal_floats(tokens * inputs, 1), dy = normal_floats(tokens * outputs, 2);
        // The last rows end their memory; what lies between rows is NaN.
        Buffer<bf16> left(tokens * ldx - 3);
        Buffer<float> right(tokens * lddy - 5);
        for (bf16& v : left.span()) v = to_bf16(std::numeric_limits<float>::quiet_NaN());
        for (float& v : right.span()) v = std::numeric_limits<float>::quiet_NaN();
        const auto x_at = [&](index_t t, index_t k) {
          return rounded(x[static_cast<std::size_t>(t * inputs + k)]);
        };
        const auto dy_at = [&](index_t t, index_t n) {
          return rounded(dy[static_cast<std::size_t>(t * outputs + n)]);
        };
        for (index_t t = 0; t < tokens; ++t) {
          for (index_t k = 0; k < inputs; ++k) left[t * ldx + k] = rounded_to<bf16>(x_at(t, k));
          for (index_t n = 0; n < width; ++n) {
            right[t * lddy + n] =
                n < outputs ? dy[static_cast<std::size_t>(t * outputs + n)] : 0.0f;
          }
        }
        PackedMatrix<float> gradient(outputs, inputs);
        for (index_t j = 0; j < gradient.num_panels(); ++j) {
          const float* panel = right.data() + j * panel_width;
          add_weight_gradient<Arch>(left.data(), ldx, panel, lddy, first_run, gradient, {j, j + 1});
        }
        add_weight_gradient<Arch>(left.data() + first_run * ldx, ldx,
                                  right.data() + first_run * lddy, lddy, tokens - first_run,
                                  gradient, {0, gradient.num_panels()});
        index_t wrong = 0, far = 0;
        for (index_t n = 0; n < outputs; ++n) {
          for (index_t k = 0; k < inputs; ++k) {
            std::vector<float> column, factors;
            double exact = 0, magnitudes = 0;
            for (index_t t = 0; t < tokens; ++t) {
              column.push_back(x_at(t, k));
              factors.push_back(dy_at(t, n));
              const double product =
                  static_cast<double>(column.back()) * static_cast<double>(factors.back());
              exact += product;
              magnitudes += std::fabs(product);
            }
            float sum = 0;
            for (const auto& [begin, end] :
                 {std::pair<index_t, index_t>{0, first_run}, {first_run, tokens}}) {
              sum = continued_sum<bf16, Sums>(column.data() + begin, factors.data() + begin,
                                              end - begin, sum);
            }
            wrong += !same_bits(gradient(n, k), sum);
            far += !(std::fabs(static_cast<double>(gradient(n, k)) - exact) <=
                     static_cast<double>(tokens) * 0x1p-24 * magnitudes);
          }
        }
        CAPTURE(inputs);
        CAPTURE(tokens);
        CHECK(wrong == 0);
        CHECK(far == 0);
        for (index_t n = 0; n < outputs; ++n) {
          for (index_t k = 0; k < inputs; ++k) gradient(n, k) = 0;
        }
        CHECK(std::ranges::count(gradient.storage(), 0.0f) == gradient.storage_size());
      }
    }
  });
}

}  // namespace

TEST_CASE("linalg/weight_gradient: bf16 takes tokens in pairs, the odd one first") {
  check_bf16<SumsOfPairs>();
}
TEST_CASE("linalg/weight_gradient: bf16 by matrix tiles takes tokens in groups of 32") {
  check_bf16<SumsOfTiles>();
}

TEST_CASE(
    "linalg/weight_gradient: bf16 copies and transposes are rounded once, at every remainder") {
  for_each_arch([&]<class Arch>() {
    for (const auto& [outputs, inputs] :
         {std::pair{1, 1}, {16, 16}, {17, 80}, {101, 71}, {64, 129}, {128, 64}}) {
      const PackedMatrix<float> w = normal_matrix(outputs, inputs, 1);
      PackedMatrix<bf16> copy(outputs, inputs), transpose(inputs, outputs);
      PackedMatrix<bf16> right(outputs, inputs);
      for (index_t n = 0; n < outputs; ++n) {
        for (index_t k = 0; k < inputs; ++k) right(n, k) = rounded_to<bf16>(w(n, k));
      }
      for (index_t j = 0; j < copy.num_panels(); ++j) round_panel<Arch>(w, copy, j);
      for (index_t j = 0; j < transpose.num_panels(); ++j) transpose_panel<Arch>(w, transpose, j);
      CHECK(std::ranges::equal(copy.storage(), right.storage()));
      CHECK(std::ranges::equal(transpose.storage(), transposed(right).storage()));
    }
  });
}

TEST_CASE("linalg/weight_gradient: a bf16 product over some of the inputs is added") {
  for_each_arch([&]<class Arch>() {
    const index_t rows = 101, outputs = 70, ldc = 80, first = 16;
    for (const index_t inputs : {46, 47}) {
      const index_t depth = inputs - first, lda = 32;
      const auto a = normal_floats(rows * depth, 1);
      const PackedMatrix<float> w = normal_matrix(outputs, inputs, 2);
      PackedMatrix<bf16> operand(outputs, inputs);
      for (index_t j = 0; j < w.num_panels(); ++j) round_panel<Arch>(w, operand, j);
      Buffer<bf16> left(rows * lda);
      for (index_t i = 0; i < rows * lda; ++i) {
        const index_t k = i % lda;
        left[i] =
            rounded_to<bf16>(k < depth ? a[static_cast<std::size_t>(i / lda * depth + k)] : 0.0f);
      }
      auto c = normal_floats(rows * ldc, 3);
      const auto before = c;
      gemm_add_inputs<Arch>(left.data(), lda, rows, operand, {first, inputs}, c.data(), ldc);
      index_t wrong = 0;
      for (index_t r = 0; r < rows; ++r) {
        for (index_t n = 0; n < outputs; ++n) {
          float sum = 0;
          for (index_t k = 0; k < depth; k += 2) {
            for (const index_t i : {k + 1, k}) {
              if (i == depth) continue;
              sum = std::fma(to_float(left[r * lda + i]), rounded(w(n, first + i)), sum);
            }
          }
          const auto at = static_cast<std::size_t>(r * ldc + n);
          wrong += !same_bits(c[at], before[at] + sum);
        }
      }
      CAPTURE(inputs);
      CHECK(wrong == 0);
    }
  });
}
