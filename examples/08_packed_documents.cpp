// SPDX-License-Identifier: Apache-2.0
// Packing: three documents in one batch cost one pass, and every loss has the bits it has when the
// document is scored alone. Without a document mask the losses are others: documents leak.
#include <cstdio>

#include <ropewalk/eval/compensated_sum.hpp>
#include <ropewalk/eval/perplexity.hpp>

#include "copy_head.hpp"

namespace rw = ropewalk;

int main() {
  const auto model = copy_head::make_model();
  const auto plan = rw::make_frequency_plan(copy_head::rope, {.rotary_dim = model.config.head_dim});
  const auto kernels = rw::make_kernel_table<rw::simd::native>();
  rw::Workspace workspace;
  const rw::Runner<float> run{.model = &model, .kernels = &kernels, .workspace = &workspace};

  // Offsets as FlashAttention has them: document d is [cu_seqlens[d], cu_seqlens[d + 1]).
  const std::vector<std::int32_t> cu_seqlens = {0, 90, 131, 421};
  std::vector<rw::TokenId> tokens, targets;  // target t is the token after token t
  for (std::size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
    const rw::index_t length = cu_seqlens[d + 1] - cu_seqlens[d];
    const auto text = copy_head::make_text(length + 1, 10 + d);
    tokens.insert(tokens.end(), text.begin(), text.end() - 1);
    targets.insert(targets.end(), text.begin() + 1, text.end());
  }

  std::vector<rw::HeadResult> packed(tokens.size()), leaking(tokens.size());
  rw::score_sequence(run, plan, tokens, targets, cu_seqlens, packed);
  rw::score_sequence(run, plan, tokens, targets, {}, leaking);  // as if it were one document

  std::printf("document  tokens  equal bits  nll alone  nll packed  nll without mask\n");
  for (std::size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
    const auto begin = static_cast<std::size_t>(cu_seqlens[d]);
    const auto length = static_cast<std::size_t>(cu_seqlens[d + 1]) - begin;
    std::vector<rw::HeadResult> alone(length);
    rw::score_sequence(run, plan, std::span(tokens).subspan(begin, length),
                       std::span(targets).subspan(begin, length), {}, alone);
    int equal = 0;
    rw::CompensatedSum sum_alone, sum_packed, sum_leaking;
    for (std::size_t t = 0; t < length; ++t) {
      equal += alone[t].nll == packed[begin + t].nll ? 1 : 0;
      sum_alone.add(alone[t].nll);
      sum_packed.add(packed[begin + t].nll);
      sum_leaking.add(leaking[begin + t].nll);
    }
    std::printf("%8zu %7zu %11d %10.4f %11.4f %17.4f\n", d, length, equal,
                sum_alone.value() / static_cast<double>(length),
                sum_packed.value() / static_cast<double>(length),
                sum_leaking.value() / static_cast<double>(length));
  }
}
