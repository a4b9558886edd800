// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Random inputs of kernels and models, made fast and from a seed: for measuring and for checks.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "ropewalk/core/executor.hpp"
#include "ropewalk/core/rng.hpp"
#include "ropewalk/model/weights.hpp"

namespace measure {

using namespace ropewalk;

/// Fills `out` with uniform numbers of mean 0 and standard deviation `deviation`; another stream
/// gives other numbers. Uniform, because hundreds of millions of normal ones would take a minute.
inline void fill_random(std::span<float> out, const Random& random, double deviation) {
  const double scale = deviation * std::sqrt(3.0) * 0x1p-31;
  for (std::size_t i = 0; i < out.size(); i += 2) {
    const std::uint64_t bits = random.bits(i / 2);
    out[i] = static_cast<float>(scale * static_cast<std::int32_t>(bits));
    if (i + 1 < out.size()) {
      out[i + 1] = static_cast<float>(scale * static_cast<std::int32_t>(bits >> 32));
    }
  }
}

inline Buffer<float> random_floats(index_t size, std::uint32_t stream, double deviation = 1) {
  Buffer<float> out(size);
  fill_random(out.span(), {.seed = 1, .stream = stream}, deviation);
  return out;
}

/// `x` as T, rounded.
template <class T>
Buffer<T> rounded_copy(std::span<const float> x) {
  Buffer<T> out(static_cast<index_t>(x.size()));
  std::transform(x.begin(), x.end(), out.data(), [](float v) { return rounded_to<T>(v); });
  return out;
}

/// random_floats() rounded to T.
template <class T>
Buffer<T> random_buffer(index_t size, std::uint32_t stream, double deviation = 1) {
  return rounded_copy<T>(random_floats(size, stream, deviation).span());
}

/// Fills a logical matrix row by row: row n is step n of the generator, rounded to T.
template <class T>
void fill_random(PackedMatrix<T>& w, Random random, double deviation,
                 const Executor& executor = {}) {
  // A panel's rows lie interleaved in memory, so a panel has one owner.
  for_each_in_runs(executor, w.num_panels(), [&](index_t panel, index_t) {
    std::vector<float> row(static_cast<std::size_t>(w.inputs()));
    const index_t end = std::min(w.outputs(), (panel + 1) * panel_width);
    for (index_t n = panel * panel_width; n < end; ++n) {
      fill_random(
          row,
          {.seed = random.seed, .stream = random.stream, .step = static_cast<std::uint32_t>(n)},
          deviation);
      if constexpr (std::is_same_v<T, float>) {
        w.set_row(n, row);
      } else {
        w.set_row(n, rounded_copy<T>(row).span());
      }
    }
  });
}

template <class T = float>
PackedMatrix<T> random_matrix(index_t outputs, index_t inputs, std::uint32_t stream,
                              double deviation = 1) {
  PackedMatrix<T> w(outputs, inputs);
  fill_random(w, {.seed = 1, .stream = stream}, deviation);
  return w;
}

/// `count` ids in [0, vocab_size).
inline std::vector<TokenId> random_ids(index_t count, index_t vocab_size, std::uint64_t seed) {
  const Random random{.seed = seed, .stream = 1};
  std::vector<TokenId> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<TokenId>(random.uniform(i) * static_cast<double>(vocab_size));
  }
  return out;
}

/// Weights of a checked config: matrices of deviation 1 / sqrt(inputs), so that activations keep
/// their size from layer to layer, rounded to T; norms 1.
template <class T = float>
LlamaWeights<T> random_weights(const LlamaConfig& config, std::uint64_t seed,
                               const Executor& executor = {}) {
  LlamaWeights<T> weights = make_llama_weights<T>(config);
  std::uint32_t stream = 1;
  for_each_parameter(config, weights, [&](const std::string&, auto& parameter) {
    ++stream;
    if constexpr (requires { parameter.outputs(); }) {
      fill_random(parameter, {.seed = seed, .stream = stream},
                  1 / std::sqrt(static_cast<double>(parameter.inputs())), executor);
    } else {
      for (float& w : parameter.span()) w = 1;
    }
  });
  return weights;
}

}  // namespace measure
