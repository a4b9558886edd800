// SPDX-License-Identifier: Apache-2.0
// A frequency method of your own: twenty lines, and rotation, attention and perplexity take it as
// they take YaRN. Nothing is registered, no kernel is recompiled for it.
#include <cmath>
#include <cstdio>
#include <numbers>

#include <ropewalk/attention/attention.hpp>
#include <ropewalk/eval/evaluate.hpp>
#include <ropewalk/eval/protocol_presets.hpp>
#include <ropewalk/rope/policy_support.hpp>

#include "copy_head.hpp"

namespace rw = ropewalk;

/// Two speeds: a pair that made a full turn within the trained length has seen every angle and is
/// left alone; a slower one is slowed further by the factor, so that it meets no new angle.
struct TwoSpeeds {
  double rope_theta = 10000;
  double factor = 1;
  std::int64_t original_max_position_embeddings = 0;

  static constexpr std::string_view name = "two_speeds";
  friend bool operator==(const TwoSpeeds&, const TwoSpeeds&) = default;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visit) {  // one list: checks, text form, config keys
    visit(rw::rope_theta_field, self.rope_theta);
    visit(rw::factor_field, self.factor);
    visit(rw::original_length_field, self.original_max_position_embeddings);
  }
  void check(rw::RotaryShape) const { rw::check_fields(*this); }
  void fill(rw::RotaryShape shape, std::span<double> inv_freq) const {
    const auto turn = 2 * std::numbers::pi / static_cast<double>(original_max_position_embeddings);
    rw::index_t pair = 0;
    for (double& out : inv_freq) {
      const double w = rw::plain_frequency(rope_theta, pair++, shape.rotary_dim);
      out = w >= turn ? w : w / factor;
    }
  }
  double attention_factor(rw::RotaryShape) const {  // as YaRN: more tokens compete, so sharpen
    return std::fma(0.1, rw::elementary::log(factor), 1.0);
  }
  std::int64_t length_key(std::int64_t) const { return 0; }  // does not depend on the length
};
static_assert(rw::FrequencyPolicy<TwoSpeeds>);

int main() {
  const TwoSpeeds method{.factor = 4, .original_max_position_embeddings = 128};
  const auto plan = rw::make_frequency_plan(method, {.rotary_dim = 16});
  std::printf("radians per token:");
  for (const double w : plan.inv_freq) std::printf(" %.3g", w);

  // Rotation and attention: two tokens, one head; the second sees the first.
  float q[32] = {1, 2, 3, 4}, k[32] = {4, 3, 2, 1}, out[32] = {};
  q[16] = k[0] = 2;
  const rw::HeadsView<float> queries(q, {2, 1, 16}), keys(k, {2, 1, 16});
  const auto rows = rw::make_rotary_rows(plan, rw::batch_positions(rw::Identity{}, 2));
  rw::rotate(queries, rows, rw::PairLayout::half_split);
  rw::rotate(keys, rows, rw::PairLayout::half_split);
  rw::attention(queries, keys, keys, rw::Causal{}, rw::HeadsView<float>(out, {2, 1, 16}));
  std::printf("\nattention output: %.4f %.4f\n\nperplexity at   128    1024\n",
              static_cast<double>(out[16]), static_cast<double>(out[17]));

  // Perplexity: the same loop for the new method and for the model's own frequencies.
  const auto model = copy_head::make_model();
  const auto ids = copy_head::make_text(8 * 1025, 1);
  const rw::Protocol lengths[] = {rw::protocols::prefix(128, 1025), rw::protocols::prefix(1024)};
  const auto kernels = rw::make_kernel_table<rw::simd::native>();
  rw::Workspace workspace;
  const rw::Runner<float> run{.model = &model, .kernels = &kernels, .workspace = &workspace};
  const auto print_row = [&](const char* name, const auto& policy) {
    const auto losses = rw::evaluate<float>(run, policy, {.ids = ids}, lengths);
    std::printf("%-10s %8.3f%8.3f\n", name, losses[0].ppl, losses[1].ppl);
  };
  print_row("default", copy_head::rope);
  print_row("two_speeds", method);
}
