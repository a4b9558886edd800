// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Reproducible test data, the same bits whether the compiler contracts a*b + c or not.

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/core/tensor.hpp"
#include "ropewalk/model/llama.hpp"

/// `count` standard normal numbers times `scale`; another stream gives other numbers.
inline std::vector<float> normal_floats(ropewalk::index_t count, std::uint32_t stream,
                                        double scale = 1) {
  const ropewalk::Random random{.seed = 42, .stream = stream, .step = 0};
  std::vector<float> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<float>(scale * random.normal(i));
  }
  return out;
}

/// `count` ids in [0, vocab_size).
inline std::vector<ropewalk::TokenId> random_tokens(ropewalk::index_t count,
                                                    ropewalk::index_t vocab_size,
                                                    std::uint32_t stream) {
  const ropewalk::Random random{.seed = 7, .stream = stream, .step = 0};
  std::vector<ropewalk::TokenId> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<ropewalk::TokenId>(random.uniform(i) * static_cast<double>(vocab_size));
  }
  return out;
}

/// A model of random weights: matrices of deviation `scale` / sqrt(inputs), norms near 1.
inline ropewalk::Llama<float> random_llama(const ropewalk::LlamaConfig& config, double scale = 1) {
  using namespace ropewalk;
  LlamaWeights<float> weights = make_llama_weights<float>(config);
  std::uint32_t stream = 0;
  const auto fill = [&](const std::string&, auto& parameter) {
    ++stream;
    if constexpr (requires { parameter.outputs(); }) {
      const double deviation = scale / std::sqrt(static_cast<double>(parameter.inputs()));
      for (index_t n = 0; n < parameter.outputs(); ++n) {
        const Random random{.seed = 1, .stream = stream, .step = static_cast<std::uint32_t>(n)};
        for (index_t k = 0; k < parameter.inputs(); ++k) {
          parameter(n, k) =
              static_cast<float>(deviation * random.normal(static_cast<std::uint64_t>(k)));
        }
      }
    } else {
      const Random random{.seed = 1, .stream = stream, .step = 0};
      for (index_t i = 0; i < parameter.size(); ++i) {
        parameter[i] =
            static_cast<float>(std::fma(0.1, random.normal(static_cast<std::uint64_t>(i)), 1.0));
      }
    }
  };
  for_each_parameter(config, weights, fill);
  return make_llama(config, std::move(weights));
}
