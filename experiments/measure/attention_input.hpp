// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Random queries, keys and values of a layer, in the form in which the attention kernel reads
/// them.

#include "ropewalk/attention/blockwise.hpp"
#include "ropewalk/attention/masks.hpp"

#include "measure/largest_error.hpp"
#include "measure/random_data.hpp"

namespace measure {

/// The last `tokens` of `past + tokens` tokens attend causally to all before them and themselves.
/// Queries are meant to carry the softmax's scale and log2(e) already. Everything is rounded to T.
template <class T = float>
struct AttentionInput {
  index_t tokens, past, heads, key_heads, head_dim;
  BlockPlan plan;
  Buffer<T> queries;       ///< (tokens, heads, head_dim)
  Buffer<T> keys, values;  ///< (past + tokens, key_heads, head_dim)
  Buffer<T> key_panels, value_panels, output;
  Buffer<float> scratch;

  AttentionInput(index_t n, index_t h, index_t k, index_t d, index_t before = 0,
                 double query_deviation = 1)
      : tokens(n),
        past(before),
        heads(h),
        key_heads(k),
        head_dim(d),
        plan(make_block_plan(Causal{}, n, {}, before)),
        queries(random_buffer<T>(n * h * d, 8, query_deviation)),
        keys(random_buffer<T>((before + n) * k * d, 9)),
        values(random_buffer<T>((before + n) * k * d, 10)),
        key_panels(KeyValuePanels<T>::keys_size(plan.key_slots, k, d)),
        value_panels(KeyValuePanels<T>::values_size(plan.key_slots, k, d)),
        output(n * h * d),
        scratch(attention_scratch_size<T>(d)) {
    std::vector<float> head(static_cast<std::size_t>(d));
    const auto as_floats = [&](const Buffer<T>& from, index_t first) {
      std::transform(from.data() + first, from.data() + first + d, head.begin(),
                     [](T x) { return to_float(x); });
      return head.data();
    };
    for (index_t t = 0; t < past + n; ++t) {  // one segment: a token's slot is its number
      for (index_t g = 0; g < k; ++g) {
        panels().store_key(g, t, as_floats(keys, (t * k + g) * d));
        panels().store_value(g, t, as_floats(values, (t * k + g) * d));
      }
    }
    for (index_t g = 0; g < k; ++g) panels().end_values(g, past + n);
  }
  KeyValuePanels<T> panels() {
    return {key_panels.data(), value_panels.data(), plan.key_slots, key_heads, head_dim};
  }
  /// Runs `kernel`, a function of attend()'s signature, on all tasks.
  template <class Kernel>
  void attend(const Kernel& kernel) {
    const AttentionBranch<T> branch{{queries.data(), {tokens, heads, head_dim}}, panels()};
    const AttentionCall<T> call{.branches = {&branch, 1},
                                .plan = &plan,
                                .output = {output.data(), {tokens, heads, head_dim}},
                                .lse = {}};
    const AttentionTasks tasks(call, {});
    for (index_t i = 0; i < tasks.size(); ++i) kernel(call, tasks[i], scratch.data());
  }
  /// Largest error of row t's output against double arithmetic, in units of the largest |value|
  /// that the row sees.
  double error_of_row(index_t t) const {
    double worst = 0;
    for (index_t h = 0; h < heads; ++h) {
      const index_t g = h / (heads / key_heads);
      const T* q = queries.data() + (t * heads + h) * head_dim;
      std::vector<double> p;
      double sum = 0;
      for (index_t j = 0; j <= past + t; ++j) {
        const T* k = keys.data() + (j * key_heads + g) * head_dim;
        double score = 0;
        for (index_t d = 0; d < head_dim; ++d) {
          score += real(q[d]) * real(k[d]);
        }
        p.push_back(std::exp2(score));  // queries carry the factor log2(e)
        sum += p.back();
      }
      for (index_t d = 0; d < head_dim; ++d) {
        double expected = 0, largest = 0;
        for (index_t j = 0; j <= past + t; ++j) {
          const double v = real(values[(j * key_heads + g) * head_dim + d]);
          expected += p[static_cast<std::size_t>(j)] / sum * v;
          largest = std::max(largest, std::fabs(v));
        }
        const double got = real(output[(t * heads + h) * head_dim + d]);
        worst = worse(worst, std::fabs(got - expected) / largest);
      }
    }
    return worst;
  }

 private:
  static double real(T x) { return static_cast<double>(to_float(x)); }
};

}  // namespace measure
