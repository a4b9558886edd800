// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "support/error_of.hpp"

namespace ropewalk {

using Positions = std::vector<std::int64_t>;
using Offsets = std::vector<std::int32_t>;

TEST_CASE("rope/position_map: identity counts on") {
  CHECK(batch_positions(Identity{}, 3) == Positions{0, 1, 2});
  CHECK(batch_positions(Identity{.first = 1000}, 3) == Positions{1000, 1001, 1002});
  CHECK(batch_positions(Identity{}, 0).empty());
  CHECK(outcome_of([] { (void)batch_positions(Identity{}, -1); }) == "usage");
}

TEST_CASE("rope/position_map: documents restart") {
  const Offsets cu_seqlens = {0, 3, 3, 4, 9};
  CHECK(batch_positions(DocumentRestart{cu_seqlens}) == Positions{0, 1, 2, 0, 0, 1, 2, 3, 4});
  // The same rows as each document alone: packing changes no angle.
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8});
  const RotaryRows packed = make_rotary_rows(plan, batch_positions(DocumentRestart{cu_seqlens}));
  CHECK(packed.num_rows() == 5);
  const RotaryRows alone = make_rotary_rows(plan, batch_positions(Identity{}, 5));
  for (std::size_t t = 0; t < 5; ++t) {
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(packed.cos[static_cast<std::size_t>(packed.row[4 + t]) * 4 + i] ==
            alone.cos[4 * t + i]);
    }
  }
}

TEST_CASE("rope/position_map: cu_seqlens must ascend from 0") {
  for (const Offsets& wrong : {Offsets{}, Offsets{1, 2}, Offsets{0, 5, 4}}) {
    CHECK(outcome_of([&] { (void)batch_positions(DocumentRestart{wrong}); }) == "usage");
  }
  CHECK(batch_positions(DocumentRestart{Offsets{0}}).empty());
}

TEST_CASE("rope/position_map: a scale folds into the turns") {
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 64});
  CHECK(with_position_scale(plan, 1).turns == plan.turns);
  CHECK(with_position_scale(plan, 1).rope_hash == plan.rope_hash);
  // Scaling positions by 1 / 8 is position interpolation by 8.
  const FrequencyPlan linear = make_frequency_plan(LinearInterpolation{1e4, 8}, {.rotary_dim = 64});
  CHECK(with_position_scale(plan, 0.125).rope_hash == linear.rope_hash);
  // Fractional positions: 0.3 p.
  const FrequencyPlan scaled = with_position_scale(plan, 0.3);
  const RotaryRows rows = make_rotary_rows(scaled, Positions{70001});
  for (std::size_t i = 0; i < 32; ++i) {
    // 2^-53 of the angle from each of two roundings, and half a float's last place.
    const double angle = 70001 * 0.3 * plan.inv_freq[i];
    CHECK(std::fabs(static_cast<double>(rows.cos[i]) - std::cos(angle)) < 3e-8 + 1e-11);
  }
  for (const double wrong : {-1.0, std::nan(""), HUGE_VAL}) {
    CHECK(outcome_of([&] { (void)with_position_scale(plan, wrong); }) == "usage");
  }
}

}  // namespace ropewalk
