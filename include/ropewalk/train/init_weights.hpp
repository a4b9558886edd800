// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Random weights to start training from.

#include <cmath>
#include <string>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/model/weights.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Normal weights of deviation 0.02, those of matrices that write to the residual stream (o_proj,
/// down_proj) divided by sqrt(2 L) as GPT-2 does; norms are 1. A function of the seed alone.
/// **Source:** Radford et al. 2019, section 2.3
inline LlamaWeights<float> init_weights(const LlamaConfig& config, std::uint64_t seed) {
  config.check();
  LlamaWeights<float> weights = make_llama_weights<float>(config);
  const double residual = 0.02 / std::sqrt(2 * static_cast<double>(config.num_hidden_layers));
  std::uint32_t stream = 0;
  for_each_parameter(config, weights, [&](const std::string& name, auto& parameter) {
    ++stream;
    if constexpr (requires { parameter.outputs(); }) {
      const bool writes_residual =
          name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
      const double deviation = writes_residual ? residual : 0.02;
      for (index_t n = 0; n < parameter.outputs(); ++n) {
        const Random random{.seed = seed, .stream = stream, .step = static_cast<std::uint32_t>(n)};
        for (index_t k = 0; k < parameter.inputs(); ++k) {
          parameter(n, k) =
              static_cast<float>(deviation * random.normal(static_cast<std::uint64_t>(k)));
        }
      }
    } else {
      for (float& x : parameter.span()) x = 1;
    }
  });
  return weights;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
