// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A small model whose widths fill no vector, its losses, and laws of their bits.

#include <algorithm>
#include <initializer_list>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/yarn.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

namespace ropewalk {

constexpr LlamaConfig small_config{.hidden_size = 40,
                                   .intermediate_size = 52,
                                   .num_hidden_layers = 2,
                                   .num_attention_heads = 4,
                                   .num_key_value_heads = 2,
                                   .head_dim = 12,
                                   .vocab_size = 91,
                                   .max_position_embeddings = 64};

inline FrequencyPlan plan_of(index_t head_dim) {
  return make_frequency_plan(Yarn{.factor = 4, .original_max_position_embeddings = 64},
                             {.rotary_dim = head_dim});
}

/// Losses of a packed batch; one document unless cu_seqlens says otherwise.
template <class Arch = simd::native, class T = float, class Mask = Causal>
std::vector<double> losses(const Llama<T>& model, const std::vector<TokenId>& ids,
                           std::vector<std::int32_t> cu_seqlens = {}, const Executor& executor = {},
                           const Mask& mask = {}) {
  const std::size_t n = ids.size() - 1;
  if (cu_seqlens.empty()) cu_seqlens = {0, static_cast<std::int32_t>(n)};
  const FrequencyPlan frequencies = plan_of(model.config.head_dim);
  const auto positions = batch_positions(DocumentRestart{cu_seqlens});
  const RotaryRows rows = make_rotary_rows(frequencies, positions);
  const RotationPair rotation{&rows, &rows};
  const BlockPlan blocks = make_block_plan(mask, static_cast<index_t>(n), cu_seqlens);
  const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
  const auto kernels = make_kernel_table<Arch, T>();
  Workspace workspace;
  std::vector<HeadResult> results(n);
  forward(model, std::span(&layer, 1),
          {.tokens = std::span(ids).first(n), .targets = std::span(ids).subspan(1)}, nullptr,
          kernels, executor, workspace, results);
  std::vector<double> out;
  for (const HeadResult& r : results) out.push_back(r.nll);
  return out;
}

/// Losses have the same bits on any instruction set of Sums and number of threads, and whatever
/// follows.
template <class Sums = SumsOfPairs, class T>
void check_bits_of_scoring(const Llama<T>& model, std::initializer_list<index_t> thread_counts) {
  const auto ids = random_tokens(701, model.config.vocab_size, 5);
  std::vector<double> whole;
  with_fastest_arch<Sums>([&]<class Arch>() { whole = losses<Arch>(model, ids); });
  for_each_arch<Sums>([&]<class Arch>() {
    for (const index_t threads : thread_counts) {
      ThreadPool pool(threads);
      CHECK(losses<Arch>(model, ids, {}, pool.executor()) == whole);
    }
  });
  for (const std::size_t length : {1u, 2u, 95u, 96u, 97u, 511u, 512u, 513u, 699u}) {
    const std::vector<TokenId> prefix(ids.begin(), ids.begin() + static_cast<index_t>(length) + 1);
    with_fastest_arch<Sums>([&]<class Arch>() {
      const auto alone = losses<Arch>(model, prefix);
      CHECK(std::equal(alone.begin(), alone.end(), whole.begin()));
    });
  }
}

/// Packed documents have the bits of the documents alone. Odd lengths: the last bf16 value of a
/// document has no partner of its own in its pair.
template <class Sums = SumsOfPairs, class T>
void check_bits_of_documents(const Llama<T>& model) {
  const auto ids = random_tokens(801, model.config.vocab_size, 6);
  const std::vector<std::int32_t> cuts = {0, 1, 60, 61, 640, 800};
  with_fastest_arch<Sums>([&]<class Arch>() {
    const auto packed = losses<Arch>(model, ids, cuts);
    for (std::size_t d = 0; d + 1 < cuts.size(); ++d) {
      // The last token of a document predicts the first of the next one, packed or alone.
      const std::vector<TokenId> alone(ids.begin() + cuts[d], ids.begin() + cuts[d + 1] + 1);
      const auto own = losses<Arch>(model, alone);
      CHECK(std::equal(own.begin(), own.end(), packed.begin() + cuts[d]));
    }
  });
}

}  // namespace ropewalk
