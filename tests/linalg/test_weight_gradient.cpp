// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/linalg/weight_gradient.hpp"

#include "linalg/gemm_problem.hpp"
#include "support/arches.hpp"

using namespace ropewalk;

TEST_CASE("linalg/weight_gradient: dW has W's order, one fma chain over tokens an element") {
  for_each_arch([&]<class Arch>() {
    for (const auto& [outputs, inputs] : {std::pair{1, 1}, {16, 7}, {65, 13}, {130, 40}}) {
      constexpr index_t tokens = 37;
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
        add_weight_gradient<Arch>(x.data(), inputs, panel, width, first_run, gradient, j);
        add_weight_gradient<Arch>(x.data() + first_run * inputs, inputs, panel + first_run * width,
                                  width, tokens - first_run, gradient, j);
      }
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
