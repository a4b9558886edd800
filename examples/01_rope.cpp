// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding in one table: turn a query by its position and a key by its own, and
// their product depends on the distance alone, wherever the two stand.
#include <cstdint>
#include <cstdio>
#include <vector>

#include <ropewalk/rope/adjusted_base.hpp>
#include <ropewalk/rope/rotate.hpp>

namespace rw = ropewalk;

// A head of 8 ones, turned as the token at this position.
std::vector<float> turned(const rw::FrequencyPlan& plan, std::int64_t position) {
  std::vector<float> head(8, 1.0f);
  const std::int64_t positions[] = {position};
  const rw::RotaryRows rows = rw::make_rotary_rows(plan, positions);
  // A view is (tokens, heads, channels). PairLayout says which channels form a pair: half_split is
  // (0, 4), (1, 5), ... as Hugging Face has it; interleaved is (0, 1), (2, 3), ... as Meta has it.
  rw::rotate(rw::HeadsView<float>(head.data(), {1, 1, 8}), rows, rw::PairLayout::half_split);
  return head;
}

int main() {
  // A head of 8 channels has 4 pairs; pair i turns by 10000^(-2i/8) radians a token.
  const rw::AdjustedBase plain{.rope_theta = 10000};
  const rw::FrequencyPlan plan = rw::make_frequency_plan(plain, {.rotary_dim = 8});
  std::printf("radians per token:");
  for (const double w : plan.inv_freq) std::printf(" %g", w);

  const rw::index_t positions[] = {200, 20'000, 2'000'000, 2'000'000'000};
  std::printf("\n\nquery . key, by the position of the query\ndistance");
  for (const rw::index_t position : positions) std::printf(" %11td", position);
  for (const rw::index_t distance : {0, 1, 3, 10, 100}) {
    std::printf("\n%8td", distance);
    for (const rw::index_t position : positions) {
      const auto q = turned(plan, position), k = turned(plan, position - distance);
      double score = 0;
      for (std::size_t c = 0; c < 8; ++c)
        score += static_cast<double>(q[c]) * static_cast<double>(k[c]);
      std::printf(" %11.4f", score);
    }
  }
  std::printf("\n");
}
