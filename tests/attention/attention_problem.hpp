// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Random queries, keys and values of a shape, and attention() on them.

#include <vector>

#include "ropewalk/attention/attention.hpp"

#include "support/random.hpp"

namespace ropewalk {

struct Problem {
  index_t queries, keys, heads, key_heads, head_dim;
  std::vector<float> q, k, v;

  Problem(index_t num_queries, index_t num_keys, index_t num_heads, index_t num_key_heads,
          index_t d, double scale = 1)
      : queries(num_queries),
        keys(num_keys),
        heads(num_heads),
        key_heads(num_key_heads),
        head_dim(d),
        q(normal_floats(queries * heads * d, 1, scale)),
        k(normal_floats(keys * key_heads * d, 2, scale)),
        v(normal_floats(keys * key_heads * d, 3)) {}

  HeadsView<const float> q_view() const { return {q.data(), {queries, heads, head_dim}}; }
  HeadsView<const float> k_view() const { return {k.data(), {keys, key_heads, head_dim}}; }
  HeadsView<const float> v_view() const { return {v.data(), {keys, key_heads, head_dim}}; }
};

struct Result {
  std::vector<float> out, lse;
  friend bool operator==(const Result&, const Result&) = default;
};

template <class Arch = simd::native, class Mask>
Result run(const Problem& p, const Mask& mask, const Executor& executor = {},
           Workspace* workspace = nullptr) {
  Result r{std::vector<float>(p.q.size(), -9.0f),
           std::vector<float>(static_cast<std::size_t>(p.heads * p.queries))};
  attention<Arch>(p.q_view(), p.k_view(), p.v_view(), mask,
                  HeadsView<float>(r.out.data(), {p.queries, p.heads, p.head_dim}),
                  {r.lse.data(), {p.heads, p.queries}},
                  {.executor = executor, .workspace = workspace});
  return r;
}

}  // namespace ropewalk
