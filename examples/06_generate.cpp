// SPDX-License-Identifier: Apache-2.0
// Generation: a prompt is continued token by token, and each token is heard as it comes. The model
// of copy_head.hpp repeats what was eight places before; its tokens are the letters a to p.
#include <cstdio>

#include <ropewalk/model/generate.hpp>

#include "copy_head.hpp"

namespace rw = ropewalk;

int main() {
  const auto model = copy_head::make_model();
  const auto kernels = rw::make_kernel_table<rw::simd::native>();
  const rw::LengthFrequencies frequencies(copy_head::rope, model.config.head_dim);

  const auto continue_prompt = [&](const char* title, const rw::GenerateConfig& config) {
    std::printf("%-22s", title);
    std::vector<rw::TokenId> ids;
    for (const char letter : {'b', 'e', 'a', 'd', 'p', 'o', 'l', 'k'}) ids.push_back(letter - 'a');
    const auto hear = [](rw::TokenId id) {
      std::putchar('a' + id);
      std::fflush(stdout);  // a person waits
      return true;          // false would end it here
    };
    const rw::GenerateResult result =
        rw::generate(model, frequencies, kernels, {}, ids, config, {.on_token = hear});
    std::printf("  (%td tokens, %td cuts)\n", result.generated, result.cuts);
  };

  // The largest logit each time.
  continue_prompt("greedy", {.max_tokens = 40, .context = 128});

  // Drawn from the probabilities. A number is a function of (seed, step): the same seed gives the
  // same text on every machine and for any number of threads.
  continue_prompt("temperature 1, seed 1",
                  {.sampling = {.temperature = 1, .seed = 1}, .max_tokens = 40, .context = 128});
  continue_prompt("temperature 1, seed 2",
                  {.sampling = {.temperature = 1, .seed = 2}, .max_tokens = 40, .context = 128});
  continue_prompt(
      "the same, top_p 0.8",
      {.sampling = {.temperature = 1, .top_p = 0.8, .seed = 2}, .max_tokens = 40, .context = 128});

  // A context that is full: stop there (the default), or drop the middle and go on.
  continue_prompt("context 32, stop", {.max_tokens = 40, .context = 32});
  continue_prompt("context 32, keep ends",
                  {.max_tokens = 40, .context = 32, .overflow = rw::Overflow::keep_ends});
}
