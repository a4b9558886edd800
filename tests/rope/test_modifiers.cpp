// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"
#include "ropewalk/rope/rotate.hpp"

#include "golden/rope_positions.hpp"
#include "support/error_of.hpp"

namespace ropewalk {
namespace {

constexpr ModelRope model = {.rope_theta = 10000, .max_position_embeddings = 4096};

FrequencyPlan plan_of_spec(const std::string& spec, index_t head_dim, std::int64_t T = 0) {
  return make_frequency_plan(parse_rope(spec, model), {.rotary_dim = head_dim, .seq_len = T});
}

/// A head of 1, 2, .. after rotation at a position.
std::vector<float> applied(const FrequencyPlan& plan, index_t head_dim, std::int64_t position,
                           PairLayout layout = PairLayout::half_split) {
  std::vector<float> x(static_cast<std::size_t>(head_dim));
  for (std::size_t c = 0; c < x.size(); ++c) x[c] = static_cast<float>(c + 1);
  const std::vector<std::int64_t> positions = {position};
  rotate(HeadsView<float>(x.data(), {1, 1, head_dim}), make_rotary_rows(plan, positions), layout);
  return x;
}

void check_near(const std::vector<float>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t c = 0; c < got.size(); ++c) {
    // 2e-7 of the pair's norm (rotate.hpp); norms are below 11.
    CHECK(std::fabs(static_cast<double>(got[c]) - want[c]) < 2.5e-6);
  }
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("rope/modifiers: golden frequencies of a cut head") {
  for (const golden::PartialCase& c : golden::contiguous()) {
    const FrequencyPlan plan = make_frequency_plan(
        AdjustedBase{c.theta}, {.rotary_dim = c.head_dim}, {.partial_rotary_factor = c.share});
    REQUIRE(plan.inv_freq.size() == c.inv_freq.size());
    for (std::size_t i = 0; i < c.inv_freq.size(); ++i) {
      CHECK(std::fabs(plan.inv_freq[i] / c.inv_freq[i] - 1) < 1e-12);  // two float64 evaluations
    }
    CHECK(plan.first_channel == 0);
  }
  // GPT-NeoX: rotary_pct 0.25 of 128 channels.
  const FrequencyPlan neox = plan_of_spec("default:partial_rotary_factor=0.25", 128);
  CHECK(neox.rotary_dim() == 32);
  CHECK(std::fabs(neox.inv_freq[1] / 0.562341325190349 - 1) < 1e-12);
  CHECK(std::fabs(neox.inv_freq[15] / 0.000177827941003892 - 1) < 1e-12);
}

TEST_CASE("rope/modifiers: three definitions of partial rotation, applied") {
  const auto half = [](const std::string& spec) { return plan_of_spec(spec, 8); };
  const FrequencyPlan contiguous = half("default:partial_rotary_factor=0.5");
  const FrequencyPlan proportional = half("proportional:partial_rotary_factor=0.5");
  const FrequencyPlan offset = half("default:rotary_dim=4,rotary_offset=4");
  check_near(applied(contiguous, 8, 3), golden::applied_contiguous);
  check_near(applied(proportional, 8, 3), golden::applied_proportional);
  check_near(applied(offset, 8, 3), golden::applied_offset);
  CHECK(contiguous.rope_hash == half("default:rotary_dim=4").rope_hash);
  CHECK(contiguous.rope_hash != offset.rope_hash);
  CHECK(contiguous.rope_hash != proportional.rope_hash);
  // The example of d = 4, p = 1 that tells the two apart.
  check_near(applied(plan_of_spec("default:partial_rotary_factor=0.5", 4), 4, 1),
             {-1.1426396637476532, 1.922075596544176, 3, 4});
  check_near(applied(plan_of_spec("proportional:partial_rotary_factor=0.5", 4), 4, 1),
             {-1.9841106485555495, 2, 2.4623779024123156, 4});
  // Interleaved pairs are neighbours within the part.
  const std::vector<float> turned = applied(offset, 8, 3, PairLayout::interleaved);
  check_near(
      turned,
      {1, 2, 3, 4, 5 * std::cos(3.0) - 6 * std::sin(3.0), 6 * std::cos(3.0) + 5 * std::sin(3.0),
       7 * std::cos(0.03) - 8 * std::sin(0.03), 8 * std::cos(0.03) + 7 * std::sin(0.03)});
}

TEST_CASE("rope/modifiers: every method in a part is the method of a head of that size") {
  for (const std::string spec :
       {"default", "linear:factor=2", "ntk:factor=4", "dynamic:factor=2", "yarn:factor=4",
        "p_rope:p=0.5", "llama3:factor=8,low_freq_factor=1,high_freq_factor=4"}) {
    const std::string separator = contains(spec, ":") ? "," : ":";
    const FrequencyPlan part = plan_of_spec(spec + separator + "rotary_dim=24", 64, 9000);
    const FrequencyPlan whole = plan_of_spec(spec, 24, 9000);
    CHECK_MESSAGE(part.rope_hash == whole.rope_hash, spec);
    CHECK(part.attention_factor == whole.attention_factor);
  }
}

TEST_CASE("rope/modifiers: logit scales enter the plan and its hash") {
  const FrequencyPlan plain = plan_of_spec("yarn:factor=4", 32);
  const FrequencyPlan scaled = plan_of_spec("yarn:factor=4,logit_scale=1.5", 32);
  const FrequencyPlan logn = plan_of_spec("yarn:factor=4,logn_length=2K", 32);
  CHECK(scaled.logit_scale == 1.5);
  CHECK(scaled.inv_freq == plain.inv_freq);
  CHECK(logn.logn == LogN{2048, true});
  CHECK(plan_of_spec("default:logn_length=8,logn_clip=false", 32).logn == LogN{8, false});
  const std::vector<std::uint64_t> hashes = {
      plain.rope_hash,
      scaled.rope_hash,
      logn.rope_hash,
      plan_of_spec("yarn:factor=4,logn_length=4K", 32).rope_hash,
      plan_of_spec("yarn:factor=4,logn_length=2K,logn_clip=false", 32).rope_hash,
      plan_of_spec("yarn:factor=4,logn_length=2K,logit_scale=1.5", 32).rope_hash};
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    for (std::size_t k = 0; k < i; ++k) CHECK(hashes[i] != hashes[k]);
  }
  // Settings that change nothing do not change the hash either.
  CHECK(plan_of_spec("yarn:factor=4,logit_scale=1,logn_length=0,rotary_offset=0", 32).rope_hash ==
        plain.rope_hash);
}

TEST_CASE("rope/modifiers: text form") {
  const std::string text =
      "ntk:rope_theta=10000,factor=4,partial_rotary_factor=0.5,rotary_offset=8,logit_scale=1.25,"
      "logn_length=512,logn_clip=false";
  const AnyFrequency rope = parse_rope(
      "ntk:logn_clip=false,logn_length=512,logit_scale=1.25,rotary_offset=8,factor=4,"
      "partial_rotary_factor=0.5",
      model);
  CHECK(to_text(rope) == text);
  CHECK(parse_rope(text, {}) == rope);
  CHECK(rope != parse_rope("ntk:factor=4", model));
  CHECK(config_hash(rope) != config_hash(parse_rope("ntk:factor=4", model)));
  CHECK(to_text(parse_rope("default:rotary_dim=16", model)) ==
        "default:rope_theta=10000,rotary_dim=16");
  // Of `proportional` the share is the method's own: one key, once in the text.
  const AnyFrequency own = parse_rope("proportional:partial_rotary_factor=0.5", model);
  CHECK(own.modifiers() == RopeModifiers{});
  CHECK(to_text(own) == "proportional:rope_theta=10000,factor=1,partial_rotary_factor=0.5");
}

TEST_CASE("rope/modifiers: what a spec leaves out is the model's") {
  ModelRope partial = model;
  partial.modifiers = {.partial_rotary_factor = 0.5, .logn_length = 2048};
  const auto modifiers = [&](const char* spec) { return parse_rope(spec, partial).modifiers(); };
  CHECK(modifiers("default") == partial.modifiers);
  CHECK(modifiers("theta=5e5") == partial.modifiers);
  CHECK(modifiers("yarn:factor=4") == partial.modifiers);
  CHECK(modifiers("ntk:factor=4,logn_length=0") ==
        RopeModifiers{.partial_rotary_factor = 0.5, .logn_length = 0});
  // Whoever says something of the part says all of it.
  CHECK(modifiers("default:rotary_dim=8") == RopeModifiers{.rotary_dim = 8, .logn_length = 2048});
  CHECK(modifiers("default:partial_rotary_factor=1") ==
        RopeModifiers{.partial_rotary_factor = 1, .logn_length = 2048});
  CHECK(modifiers("p_rope:p=0.5,partial_rotary_factor=null") == RopeModifiers{.logn_length = 2048});
  CHECK(modifiers("proportional:partial_rotary_factor=0.25") == RopeModifiers{.logn_length = 2048});
  const ModelRope again = model_rope(parse_rope("yarn:factor=4", partial), 4096);
  CHECK(again.modifiers == partial.modifiers);
  CHECK(again.rope_theta == 10000);
  CHECK(again.max_position_embeddings == 4096);
}

TEST_CASE("rope/modifiers: contradictions and parts that do not fit are refused by name") {
  struct Wrong {
    const char* keys;
    const char* field;
    const char* says;
  };
  for (const Wrong& wrong : {
           Wrong{"partial_rotary_factor=0", "partial_rotary_factor", "above 0"},
           {"partial_rotary_factor=1.5", "partial_rotary_factor", "(0, 1]"},
           {"partial_rotary_factor=nan", "partial_rotary_factor", "number"},
           {"partial_rotary_factor=0.5,rotary_dim=16", "rotary_dim", "Remove one"},
           {"rotary_offset=8", "rotary_offset", "Give rotary_dim"},
           {"rotary_dim=16,rotary_offset=-1", "rotary_offset", "at least 0"},
           {"rotary_dim=1.5", "rotary_dim", "integer"},
           {"rotary_dim=0", "rotary_dim", "at least 2"},
           {"logit_scale=0", "logit_scale", "above 0"},
           {"logit_scale=-1", "logit_scale", "above 0"},
           {"logn_length=1", "logn_length", "at least 2"},
           {"logn_length=x", "logn_length", "integer"},
           {"logn_clip=true", "logn_clip", "Give logn_length"},
           {"logn_length=8,logn_clip=1", "logn_clip", "true, false"},
           {"logn=8", "\"logn\"", "logn_length"},
           {"rotary_dims=8", "\"rotary_dims\"", "Did you mean rotary_dim?"},
       }) {
    const ErrorInfo error =
        error_of([&] { (void)parse_rope(std::string("default:") + wrong.keys, model); });
    CHECK_MESSAGE(error.kind == ErrorClass::usage, wrong.keys);
    CHECK_MESSAGE(error.field == wrong.field, to_text(error));
    CHECK_MESSAGE(contains(to_text(error), wrong.says), to_text(error));
    CHECK_MESSAGE(contains(to_text(error), wrong.keys), to_text(error));
  }
  // These need the head.
  const auto misfit = [](const char* keys, index_t head_dim) {
    const ErrorInfo error =
        error_of([&] { plan_of_spec(std::string("default:") + keys, head_dim); });
    CHECK(error.kind == ErrorClass::config);
    CHECK_FALSE(error.expected.empty());
    return error.field;
  };
  CHECK(misfit("rotary_dim=34", 32) == "rotary_dim");
  CHECK(misfit("rotary_dim=7", 32) == "rotary_dim");                           // odd
  CHECK(misfit("partial_rotary_factor=0.1", 10) == "partial_rotary_factor");   // one channel
  CHECK(misfit("partial_rotary_factor=0.3", 10) == "partial_rotary_factor");   // three
  CHECK(misfit("partial_rotary_factor=0.01", 32) == "partial_rotary_factor");  // none
  CHECK(misfit("rotary_dim=16,rotary_offset=17", 32) == "rotary_offset");
  CHECK(plan_of_spec("default:rotary_dim=16,rotary_offset=16", 32).first_channel == 16);
}

TEST_CASE("rope/rotary_rows: plans of one batch rotate the same channels") {
  const std::vector<std::int64_t> positions = {0, 1};
  RotaryRows rows = make_rotary_rows(plan_of_spec("default:rotary_dim=4", 8), positions);
  CHECK(rows.first_channel == 0);
  CHECK(outcome_of([&] {
          append_rotary_rows(rows, plan_of_spec("default:rotary_dim=4,rotary_offset=4", 8),
                             positions);
        }) == "usage");
  std::vector<float> narrow(6);
  rows = make_rotary_rows(plan_of_spec("default:rotary_dim=4,rotary_offset=4", 8), positions);
  CHECK(outcome_of([&] {
          rotate(HeadsView<float>(narrow.data(), {2, 1, 6}), rows, PairLayout::half_split);
        }) == "usage");
}

}  // namespace ropewalk
