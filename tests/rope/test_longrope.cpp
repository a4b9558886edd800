// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "golden/rope_positions.hpp"
#include "support/error_of.hpp"

namespace ropewalk {
namespace {

LongRope four(std::optional<double> factor = 8) {
  return {.short_factor = {1, 1.25, 1.5, 2},
          .long_factor = {1, 2, 4, 8},
          .factor = factor,
          .original_max_position_embeddings = 4096};
}

double attention_at(const LongRope& rope, std::int64_t T) {
  return rope.attention_factor({.rotary_dim = 8, .seq_len = T});
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("rope/longrope: golden frequencies and attention factors") {
  for (const golden::LongRopeCase& c : golden::longrope()) {
    LongRope rope{.rope_theta = c.theta,
                  .short_factor = c.short_factor,
                  .long_factor = c.long_factor,
                  .factor = c.factor,
                  .original_max_position_embeddings = c.length};
    if (c.given_attention_factor != 0) rope.attention_factor_override = c.given_attention_factor;
    const FrequencyPlan plan = make_frequency_plan(rope, {.rotary_dim = c.d, .seq_len = c.T});
    REQUIRE(plan.inv_freq.size() == c.inv_freq.size());
    for (std::size_t i = 0; i < c.inv_freq.size(); ++i) {
      // Two float64 evaluations of one formula: a few 1e-16.
      CHECK(std::fabs(plan.inv_freq[i] / c.inv_freq[i] - 1) < 1e-12);
    }
    CHECK(std::fabs(plan.attention_factor / c.attention_factor - 1) < 1e-12);
  }
  // Values that papers and configurations print.
  CHECK(std::fabs(attention_at(four(32), 0) - 1.1902380714238083) < 1e-15);
  CHECK(std::fabs(attention_at(four(8), 0) - 1.118033988749895) < 1e-15);
  LongRope longer = four(16);
  longer.original_max_position_embeddings = 8192;
  CHECK(std::fabs(attention_at(longer, 0) - 1.1435437497937313) < 1e-15);
}

TEST_CASE("rope/longrope: one of two lists by the length of the sequence") {
  const LongRope rope = four();
  const auto w = [&](std::int64_t T) {
    return make_frequency_plan(rope, {.rotary_dim = 8, .seq_len = T}).inv_freq;
  };
  const std::vector<double> plain = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8}).inv_freq;
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(w(0)[i] == plain[i] / rope.short_factor[i]);
    CHECK(w(4096)[i] == plain[i] / rope.short_factor[i]);
    CHECK(w(4097)[i] == plain[i] / rope.long_factor[i]);
  }
  CHECK(rope.length_key(1) == rope.length_key(4096));
  CHECK(rope.length_key(4096) != rope.length_key(4097));
  CHECK(rope.length_key(4097) == rope.length_key(std::int64_t{1} << 40));
  // The attention factor is the same on both sides.
  CHECK(attention_at(rope, 1) == attention_at(rope, 100000));
}

TEST_CASE("rope/longrope: where the attention factor comes from") {
  LongRope rope = four(1);
  CHECK(attention_at(rope, 1) == 1);
  rope.short_mscale = 1.25;  // alone: only of its list
  CHECK(attention_at(rope, 4096) == 1.25);
  CHECK(attention_at(rope, 4097) == 1);
  rope.attention_factor_override = 1.5;
  CHECK(attention_at(rope, 4096) == 1.25);
  CHECK(attention_at(rope, 4097) == 1.5);
  rope.attention_factor_override.reset();
  rope.long_mscale = 1.75;
  CHECK(attention_at(rope, 4096) == 1.25);
  CHECK(attention_at(rope, 4097) == 1.75);
  rope.factor.reset();
  CHECK_NOTHROW(rope.check({.rotary_dim = 8}));
}

TEST_CASE("rope/longrope: lists and factors that do not fit are refused by name") {
  const auto error_field = [](const LongRope& rope, index_t d) {
    const ErrorInfo error = error_of([&] { rope.check({.rotary_dim = d}); });
    CHECK(error.kind == ErrorClass::config);
    return error.field;
  };
  CHECK(error_field(four(), 16) == "short_factor");
  LongRope rope = four();
  rope.long_factor.push_back(9);
  CHECK(error_field(rope, 8) == "long_factor");
  CHECK_FALSE(error_field(rope, 0).empty());
  rope = four();
  rope.long_factor.clear();
  CHECK(error_field(rope, 0) == "long_factor");
  rope = four();
  rope.long_factor[2] = 0;
  CHECK(error_field(rope, 8) == "long_factor");
  rope.long_factor[2] = std::nan("");
  CHECK(error_field(rope, 8) == "long_factor");
  CHECK(error_field(four(std::nullopt), 8) == "factor");
  CHECK(error_field(four(0.5), 8) == "factor");
  rope = four();
  rope.original_max_position_embeddings = 1;  // ln 1 = 0
  CHECK(error_field(rope, 8) == "original_max_position_embeddings");
  rope.attention_factor_override = 1;
  CHECK_NOTHROW(rope.check({.rotary_dim = 8}));
  rope.short_mscale = 1;
  rope.long_mscale = 1;
  CHECK(error_field(rope, 8) == "attention_factor");
}

TEST_CASE("rope/longrope: lists in specs") {
  const ModelRope model{.rope_theta = 10000, .max_position_embeddings = 4096};
  const std::string spec = "longrope:short_factor=[1,1.25,1.5,2],long_factor=[1,2,4,8],factor=8";
  const AnyFrequency rope = parse_rope(spec, model);
  CHECK(rope == AnyFrequency(four()));
  CHECK(to_text(rope) ==
        "longrope:rope_theta=10000,short_factor=[1,1.25,1.5,2],long_factor=[1,2,4,8],factor=8,"
        "original_max_position_embeddings=4096,attention_factor=null,short_mscale=null,"
        "long_mscale=null");
  CHECK(parse_rope(to_text(rope), {}) == rope);
  struct Wrong {
    const char* list;
    const char* says;
  };
  for (const Wrong& wrong : {Wrong{"[]", "NUMBER"},
                             {"1", "a list"},
                             {"[1,2", "unmatched ["},
                             {"[1,]", "NUMBER"},
                             {"[,1]", "NUMBER"},
                             {"[1;2]", "NUMBER"},
                             {"[1,x]", "x"},
                             {"[1,nan]", "nan"},
                             {"[1, 2]", "NUMBER"},
                             {"[[1],2]", "NUMBER"},
                             {"[1,2]3", "a list"},
                             {"[1,-2,3,4]", "above 0"},
                             {"[1,0,3,4]", "above 0"},
                             {"[1,2,3]", "same length"},
                             {"null", "a list"}}) {
    const ErrorInfo error = error_of([&] {
      (void)parse_rope(
          std::string("longrope:long_factor=[1,2,4,8],factor=8,short_factor=") + wrong.list, model);
    });
    CHECK_MESSAGE(error.kind == ErrorClass::usage, wrong.list);
    CHECK_MESSAGE(contains(to_text(error), wrong.says), to_text(error));
  }
  CHECK(error_of([&] { (void)parse_rope("longrope:factor=8", model); }).field == "short_factor");
  CHECK(error_of([&] {
          (void)parse_rope("longrope:short_factor=[1],long_factor=[1]", model);
        }).field == "factor");
}

}  // namespace ropewalk
