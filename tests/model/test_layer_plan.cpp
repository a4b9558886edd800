// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/model/layer_plan.hpp"
#include "ropewalk/rope/any_frequency.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/rope_spec.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

FrequencyPlan plan(const char* spec) {
  return make_frequency_plan(parse_rope(spec, {1e4, 16}), {.rotary_dim = 8});
}

}  // namespace

TEST_CASE("model/layer_plan: all that a frequency plan asks of a layer arrives there") {
  const FrequencyPlan scaled = plan("yarn:factor=4,logit_scale=1.5,logn_length=4,logn_clip=false");
  const std::vector<std::int64_t> positions = batch_positions(Identity{3}, 5);
  const BlockPlan blocks = make_block_plan(Causal{}, 5);
  TokenRotations tokens;
  append_tokens(tokens, scaled, positions);
  const LayerPlan layer = make_layer_plan(tokens, blocks);
  REQUIRE(layer.branches.size() == 1);
  CHECK(layer.blocks == &blocks);
  CHECK(layer.branches[0].queries == layer.branches[0].keys);
  const RotaryRows expected = make_rotary_rows(scaled, positions);
  CHECK(layer.branches[0].queries->cos == expected.cos);
  CHECK(layer.branches[0].queries->sin == expected.sin);
  CHECK(layer.branches[0].queries->row == expected.row);
  const std::vector<float> scale = make_query_scale(scaled, positions);
  CHECK(scale[0] == 1);  // position 3 sees 4 keys: ln 4 / ln 4
  CHECK(std::vector<float>(layer.query_scale.begin(), layer.query_scale.end()) == scale);
  CHECK(layer.logit_scale == 1.5);
  CHECK(layer.rope_hash == scaled.rope_hash);
  CHECK(tokens.positions == positions);

  const RotaryRows keys = make_rotary_rows(scaled, batch_positions(Identity{}, 8));
  CHECK(make_layer_plan(tokens, blocks, &keys).branches[0].keys == &keys);
  CHECK(make_layer_plan(tokens, blocks, &keys).branches[0].queries == &tokens.rows);

  TokenRotations coarse;
  append_tokens(coarse, scaled, positions, AnglePrecision::hf_float32);
  CHECK(coarse.rows.cos == make_rotary_rows(scaled, positions, AnglePrecision::hf_float32).cos);
}

TEST_CASE("model/layer_plan: tokens of several plans follow each other, each under its own") {
  const FrequencyPlan plain = plan("default"), logn = plan("yarn:factor=4,logn_length=2");
  const std::vector<std::int64_t> three = {0, 1, 2}, two = {0, 1};
  const std::vector<float> scale = make_query_scale(logn, three);
  REQUIRE(scale[2] > 1);
  TokenRotations tokens;
  append_tokens(tokens, plain, two);
  CHECK(tokens.query_scale.empty());
  append_tokens(tokens, logn, three);
  append_tokens(tokens, plain, two);
  CHECK(tokens.query_scale == std::vector<float>{1, 1, 1, 1, scale[2], 1, 1});
  CHECK(tokens.positions == std::vector<std::int64_t>{0, 1, 0, 1, 2, 0, 1});
  const RotaryRows own = make_rotary_rows(logn, three);
  for (std::size_t t = 0; t < 3; ++t) {
    for (index_t i = 0; i < own.num_pairs; ++i) {
      CHECK(tokens.rows.cos[static_cast<std::size_t>(tokens.rows.row[2 + t] * own.num_pairs + i)] ==
            own.cos[static_cast<std::size_t>(own.row[t] * own.num_pairs + i)]);
    }
  }
  // A cache of rotated keys compares hashes: a mixture is none of its parts.
  CHECK(tokens.rope_hash != plain.rope_hash);
  CHECK(tokens.rope_hash != logn.rope_hash);
  TokenRotations twice;
  append_tokens(twice, plain, two);
  append_tokens(twice, plain, three);
  CHECK(twice.rope_hash == plain.rope_hash);
}

TEST_CASE("model/layer_plan: what is the pass's own is not mixed") {
  const FrequencyPlan plain = plan("default");
  const std::vector<std::int64_t> two = {0, 1};
  for (const char* spec :
       {"linear:factor=1,logit_scale=2", "linear:factor=1,partial_rotary_factor=0.5",
        "linear:factor=1,partial_rotary_factor=0.5,rotary_offset=4"}) {
    CAPTURE(spec);
    CHECK_FALSE(can_share_pass(plain, plan(spec)));
    TokenRotations tokens;
    append_tokens(tokens, plain, two);
    CHECK(outcome_of([&] { append_tokens(tokens, plan(spec), two); }) == "usage");
  }
  CHECK_FALSE(can_share_pass(plan("linear:factor=1,partial_rotary_factor=0.5"),
                             plan("linear:factor=1,partial_rotary_factor=0.5,rotary_offset=4")));
  CHECK(can_share_pass(plain, plan("ntk:factor=2,logn_length=16")));
}
