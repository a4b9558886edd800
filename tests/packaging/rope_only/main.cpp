// SPDX-License-Identifier: Apache-2.0
/// \file
/// Who wants the frequencies and angles alone gets them without xsimd and Eigen.

#include <cmath>
#include <cstdio>
#include <vector>

#include <ropewalk/rope.hpp>

#if defined(XSIMD_HPP) || defined(EIGEN_CORE_H) || defined(INCLUDE_NLOHMANN_JSON_HPP_)
#error "the rope component includes more than it should"
#endif

double first_cosine(std::int64_t position);  // second_unit.cpp

int main() {
  const ropewalk::Yarn yarn{
      .rope_theta = 10000, .factor = 4, .original_max_position_embeddings = 256};
  const ropewalk::FrequencyPlan plan = ropewalk::make_frequency_plan(yarn, {.rotary_dim = 64});
  // The fastest pair is not interpolated: one radian a token.
  const bool right = plan.num_pairs() == 32 && plan.inv_freq[0] == 1.0 &&
                     std::abs(first_cosine(3) - std::cos(3.0) * plan.attention_factor) < 1e-6;
  if (!right) std::puts("wrong frequencies");
  return right ? 0 : 1;
}
