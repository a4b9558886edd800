// SPDX-License-Identifier: Apache-2.0
// The question of this library, answered in one loop: what does a RoPE setting do to a model at
// every context length? The model is the one of copy_head.hpp; 04_load_llama.cpp loads a real one.
#include <cstdio>

#include <ropewalk/core/thread_pool.hpp>
#include <ropewalk/eval/evaluate.hpp>
#include <ropewalk/eval/protocol_presets.hpp>
#include <ropewalk/rope/rope_spec.hpp>

#include "copy_head.hpp"

namespace rw = ropewalk;

int main() {
  const auto model = copy_head::make_model();
  const auto ids = copy_head::make_text(8 * 1025, 1);
  // Windows of 1025 ids, of which the first 64, 128, ... predictions are averaged.
  std::vector<rw::Protocol> lengths;
  for (const rw::index_t length : {64, 128, 256, 512, 1024}) {
    lengths.push_back(rw::protocols::prefix(length, 1025));
  }

  const auto kernels = rw::make_kernel_table<rw::simd::native>();
  rw::ThreadPool pool(2);  // any number: the results have the same bits
  rw::Workspace workspace;
  const rw::Runner<float> run{
      .model = &model, .kernels = &kernels, .executor = pool.executor(), .workspace = &workspace};

  std::printf("perplexity of a copying head, trained at 128 tokens\n%-26s", "");
  for (const rw::Protocol& p : lengths) std::printf(" %7td", p.window);
  const rw::ModelRope trained{.rope_theta = 10000, .max_position_embeddings = 128};
  for (const char* spec : {"default", "linear:factor=4", "ntk:factor=4", "theta=50000",
                           "yarn:factor=4,beta_fast=2", "dynamic:factor=2"}) {
    std::printf("\n%-26s", spec);
    const rw::AnyFrequency rope = rw::parse_rope(spec, trained);
    // Causal attention: one pass at 1024 holds the losses of all shorter lengths, bit for bit.
    // Where frequencies depend on the length (dynamic), a length has passes of its own.
    for (const rw::ProtocolSummary& row : rw::evaluate<float>(run, rope, {.ids = ids}, lengths)) {
      std::printf(" %7.3f", row.ppl);
    }
  }
  std::printf("\n");
}
