// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include <ropewalk/rope.hpp>

double first_cosine(std::int64_t position) {
  const ropewalk::Yarn yarn{
      .rope_theta = 10000, .factor = 4, .original_max_position_embeddings = 256};
  const auto plan = ropewalk::make_frequency_plan(yarn, {.rotary_dim = 64});
  const std::int64_t positions[] = {position};
  return static_cast<double>(ropewalk::make_rotary_rows(plan, positions).cos[0]);
}
