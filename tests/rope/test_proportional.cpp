// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "golden/rope_positions.hpp"
#include "support/error_of.hpp"

namespace ropewalk {

TEST_CASE("rope/proportional: golden frequencies") {
  for (const golden::PartialCase& c : golden::proportional()) {
    const std::vector<double> w =
        make_frequency_plan(Proportional{c.theta, c.factor, c.share}, {.rotary_dim = c.head_dim})
            .inv_freq;
    REQUIRE(w.size() == c.inv_freq.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (c.inv_freq[i] == 0) {
        CHECK(w[i] == 0);
      } else {
        CHECK(std::fabs(w[i] / c.inv_freq[i] - 1) < 1e-12);  // two float64 evaluations
      }
    }
  }
  // The source's printed values: p = 0.25, d = 128, b = 1e6.
  const auto w = make_frequency_plan(Proportional{1e6, 1, 0.25}, {.rotary_dim = 128}).inv_freq;
  CHECK(std::fabs(w[1] / 0.805842187761482 - 1) < 1e-12);
  CHECK(std::fabs(w[15] / 0.0392418975848454 - 1) < 1e-12);
  CHECK(w[16] == 0);
  CHECK(w[63] == 0);
}

TEST_CASE("rope/proportional: p-RoPE is the same, p = 1 is plain RoPE") {
  for (const double p : {0.04, 0.25, 0.5, 0.75, 1.0}) {
    CHECK(make_frequency_plan(PRope{1e4, p}, {.rotary_dim = 64}).rope_hash ==
          make_frequency_plan(Proportional{1e4, 1, p}, {.rotary_dim = 64}).rope_hash);
  }
  CHECK(make_frequency_plan(PRope{1e4, 1}, {.rotary_dim = 64}).rope_hash ==
        make_frequency_plan(AdjustedBase{1e4}, {.rotary_dim = 64}).rope_hash);
  CHECK(turning_pairs(0.75, 64) == 24);
  CHECK(turning_pairs(0.5, 10) == 2);  // 2.5 rounded down
  CHECK(turning_pairs(0.04, 64) == 1);
}

TEST_CASE("rope/proportional: a share that is none is refused") {
  const ModelRope model{.rope_theta = 1e4, .max_position_embeddings = 256};
  CHECK(error_of([&] { (void)parse_rope("proportional", model); }).field ==
        "partial_rotary_factor");
  CHECK(error_of([&] { (void)parse_rope("p_rope:p=1.5", model); }).field == "p");
  CHECK(error_of([&] { (void)parse_rope("p_rope:p=0", model); }).field == "p");
  const ErrorInfo none = error_of([] { PRope{1e4, 0.01}.check({.rotary_dim = 64}); });
  CHECK(none.kind == ErrorClass::config);
  CHECK(none.field == "p");
}

}  // namespace ropewalk
