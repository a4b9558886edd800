// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "laws/frequency_policy_laws.hpp"

namespace ropewalk {
namespace {

static_assert(FrequencyPolicy<AnyFrequency>);

constexpr ModelRope trained = {.rope_theta = 10000, .max_position_embeddings = 4096};

/// Settings of every method; a new method adds its own here.
std::vector<AnyFrequency> examples() {
  std::vector<AnyFrequency> policies;
  for (const char* spec :
       {"default",
        "theta=5e5",
        "theta=1.28e8",
        "linear:factor=8",
        "linear:factor=1.7",
        "ntk:factor=8",
        "ntk:factor=1",
        "dynamic:factor=2",
        "dynamic:factor=8",
        "dynamic:factor=1",
        "ntk_by_parts:factor=8",
        "ntk_by_parts:factor=3,ntk_factor=0.5,extrapolation_factor=0.25",
        "yarn:factor=8",
        "yarn:factor=4,truncate=false",
        "yarn:factor=40,mscale=0.707,mscale_all_dim=1",
        "yarn:factor=2,attention_factor=1.25,beta_fast=16,beta_slow=2",
        "yarn_paper:factor=8",
        "yarn_paper:factor=8,attention_factor=1",
        "llama3:factor=8,low_freq_factor=1,high_freq_factor=4",
        "llama3:factor=32,low_freq_factor=0.5,high_freq_factor=9.25,rope_theta=5e5",
        "longrope:short_factor=[1,1,1.5],long_factor=[1,2,8.25],factor=8",
        "longrope:short_factor=[1,1.0625,1.5],long_factor=[1,2,64],short_mscale=1.1,long_mscale=1."
        "2",
        "proportional:partial_rotary_factor=0.5",
        "proportional:partial_rotary_factor=0.75,factor=8",
        "p_rope:p=1",
        "p_rope:p=0.4",
        "default:rotary_dim=4,rotary_offset=2,logit_scale=1.25,logn_length=256"}) {
    policies.push_back(parse_rope(spec, trained));
  }
  return policies;
}

}  // namespace

TEST_CASE("rope/any_frequency: every method keeps the laws of frequency policies") {
  const std::vector<AnyFrequency> policies = examples();
  for (const std::string_view method : rope_methods()) {
    CHECK_MESSAGE(std::any_of(policies.begin(), policies.end(),
                              [&](const AnyFrequency& p) { return p.method() == method; }),
                  "no example of ", method);
  }
  for (const AnyFrequency& policy : policies) {
    for (const RotaryShape shape :
         {RotaryShape{128, 0}, RotaryShape{128, 4096}, RotaryShape{64, 9000}, RotaryShape{6, 5},
          RotaryShape{6, 9000}}) {
      // Lists of divisors fit one number of pairs.
      const auto* listed = policy.get_if<LongRope>();
      if (listed != nullptr && 2 * std::ssize(listed->short_factor) != shape.rotary_dim) continue;
      policy.visit([&](const auto& p) { laws::check_frequency_policy(p, shape); });
      laws::check_frequency_policy(policy, shape);
    }
  }
}

TEST_CASE("rope/any_frequency: is the policy it holds") {
  const RotaryShape shape = {.rotary_dim = 128, .seq_len = 20000};
  const DynamicNtk dynamic = {.factor = 4, .original_max_position_embeddings = 4096};
  const AnyFrequency any = dynamic;
  CHECK(any.method() == "dynamic");
  CHECK(method_name(any) == method_name(dynamic));
  CHECK(any.length_key(20000) == 20000);
  CHECK(any.get_if<DynamicNtk>() != nullptr);
  CHECK(any.get_if<Yarn>() == nullptr);
  CHECK(rope_theta_of(any) == 10000);
  CHECK(make_frequency_plan(any, shape).rope_hash == make_frequency_plan(dynamic, shape).rope_hash);
  CHECK(any != AnyFrequency(DynamicNtk{.factor = 5, .original_max_position_embeddings = 4096}));
  CHECK(any != AnyFrequency(NtkAware{.factor = 4}));
  CHECK(AnyFrequency() == AnyFrequency(AdjustedBase{}));
}

namespace {

/// A method of a user's own: every pair turns alike.
struct Uniform {
  double rope_theta = 10000;
  static constexpr std::string_view name = "uniform";
  friend bool operator==(const Uniform&, const Uniform&) = default;
  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {
    visit(rope_theta_field, self.rope_theta);
  }
  void check(RotaryShape) const {}
  void fill(RotaryShape, std::span<double> inv_freq) const {
    for (double& w : inv_freq) w = 0.5;
  }
  double attention_factor(RotaryShape) const { return 1; }
  std::int64_t length_key(std::int64_t) const { return 0; }
};

}  // namespace

TEST_CASE("rope/any_frequency: a program's own list adds its methods to the text form") {
  using Mine = MethodList<AdjustedBase, Uniform>;
  const AnyFrequencyOf<Mine> policy = parse_rope<Mine>("uniform", trained);
  CHECK(policy.method() == "uniform");
  CHECK(policy == parse_rope<Mine>("uniform", trained));
  CHECK(make_frequency_plan(policy, {.rotary_dim = 4}).inv_freq == std::vector<double>{0.5, 0.5});
  CHECK_THROWS_AS(parse_rope("uniform", trained), Error);
  CHECK_THROWS_AS(parse_rope<Mine>("yarn:factor=4", trained), Error);
}

}  // namespace ropewalk
