// SPDX-License-Identifier: Apache-2.0
// What the methods do to the wavelengths of a head: a model that was trained at 4096 tokens with
// base 10000 is to read 16384. Frequencies alone: no kernels, nothing to link.
#include <cstdio>
#include <numbers>
#include <vector>

#include <ropewalk/rope.hpp>

namespace rw = ropewalk;

int main() {
  const rw::ModelRope model{.rope_theta = 10000, .max_position_embeddings = 4096};
  const char* specs[] = {"default", "linear:factor=4", "ntk:factor=4", "yarn:factor=4"};

  // The specs of the command line. What they leave out (theta, trained length) is the model's.
  std::vector<rw::FrequencyPlan> plans;
  for (const char* spec : specs) {
    plans.push_back(rw::make_frequency_plan(rw::parse_rope(spec, model), {.rotary_dim = 128}));
  }

  // A pair whose wavelength exceeds the 4096 trained tokens never made a full turn in training: at
  // 16384 it meets angles that it has not seen, unless the method slows it down. Fast pairs, which
  // tell neighbours apart, are what a method had better leave alone.
  std::printf("tokens per turn\npair");
  for (const char* spec : specs) std::printf(" %16s", spec);
  std::printf("\n");
  for (std::size_t pair = 0; pair < 64; pair += 7) {
    std::printf("%4zu", pair);
    for (const rw::FrequencyPlan& plan : plans) {
      std::printf(" %16.1f", 2 * std::numbers::pi / plan.inv_freq[pair]);
    }
    std::printf("\n");
  }
  std::printf("\nattention factor");
  for (const rw::FrequencyPlan& plan : plans) std::printf("  %.6f", plan.attention_factor);
  std::printf("\n\nin full: %s\n", rw::to_text(rw::parse_rope("yarn:factor=4", model)).c_str());
}
