// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <ropewalk/oracle/rotary.hpp>
#include <ropewalk/ropewalk.hpp>

/// Largest difference between the kernel and the oracle on one head of one token.
double distance_to_oracle() {
  constexpr ropewalk::index_t head_dim = 34;
  const auto plan = ropewalk::make_frequency_plan(ropewalk::AdjustedBase{.rope_theta = 10000},
                                                  {.rotary_dim = head_dim});
  const std::vector<std::int64_t> positions = {1234};
  std::vector<float> x(head_dim);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 1.0f / static_cast<float>(i + 1);
  std::vector<double> y(x.begin(), x.end());
  ropewalk::rotate({x.data(), {1, 1, head_dim}}, ropewalk::make_rotary_rows(plan, positions),
                   ropewalk::PairLayout::half_split);
  ropewalk::oracle::rotate({y.data(), {1, 1, head_dim}},
                           ropewalk::oracle::rotary_table(positions, plan.inv_freq, 1),
                           ropewalk::PairLayout::half_split);
  double distance = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    distance = std::max(distance, std::abs(static_cast<double>(x[i]) - y[i]));
  }
  return distance;
}
