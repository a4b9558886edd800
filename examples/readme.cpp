// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include <ropewalk/ropewalk.hpp>

namespace rw = ropewalk;

int main() {
  const std::vector<std::int32_t> cu_seqlens = {0, 1000, 1600};  // two documents, packed
  rw::Tensor<float, 3> q({1600, 8, 64}), k({1600, 2, 64}), v({1600, 2, 64}), out({1600, 8, 64});
  for (auto* x : {&q, &k, &v})  // (tokens, heads, channels); yours come from a model
    for (rw::index_t i = 0; i < x->size(); ++i)
      x->data()[i] = static_cast<float>(i * i % 17 - 8) / 8;

  const rw::Yarn yarn{.factor = 4, .original_max_position_embeddings = 4096};
  const auto plan = rw::make_frequency_plan(yarn, {.rotary_dim = 64});
  const auto rows =
      rw::make_rotary_rows(plan, rw::batch_positions(rw::DocumentRestart{cu_seqlens}));
  rw::rotate(q.view(), rows, rw::PairLayout::half_split);
  rw::rotate(k.view(), rows, rw::PairLayout::half_split);
  rw::attention(q.view(), k.view(), v.view(), rw::CausalDocuments(cu_seqlens), out.view());

  std::cout << out.view()(999, 0, 0) << ' ' << out.view()(1599, 7, 63) << '\n';
}
