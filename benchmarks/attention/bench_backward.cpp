// SPDX-License-Identifier: Apache-2.0
/// \file
/// The gradient of causal attention of one head a thread, from what the forward pass left: the
/// panels that only it reads are made inside. 10 D flops a visible pair.

#include <cmath>

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/backward.hpp"
#include "ropewalk/attention/gradient_panels.hpp"

#include "harness.hpp"
#include "measure/attention_input.hpp"
#include "measure/random_data.hpp"

namespace bench {
namespace {

template <class T>
struct Backward {
  using Panels = KeyValuePanels<T>;
  AttentionInput<T> in;
  BlockPlan plan;
  Buffer<T> key_rows, value_columns;
  Buffer<float> lse, d_output, dq, dk, dv, scratch;
  Threads threads;

  Backward(index_t n, index_t d, index_t thread_count)
      : in(n, thread_count, thread_count, d, 0, log2_e / std::sqrt(static_cast<double>(d))),
        plan(make_block_plan(Causal{}, n)),
        key_rows(Panels::values_size(plan.key_slots, thread_count, d)),
        value_columns(Panels::keys_size(plan.key_slots, thread_count, d)),
        lse(n * thread_count),
        d_output(in.output.size()),
        dq(in.output.size()),
        dk(in.output.size()),
        dv(in.output.size()),
        scratch(scratch_size(d) * thread_count),
        threads(thread_count) {
    for (index_t i = 0; i < d_output.size(); ++i) {
      d_output[i] = to_float(in.values[d_output.size() - 1 - i]);
    }
    const AttentionBranch<T> branch{queries(), panels()};
    const AttentionCall<T> call{{&branch, 1}, &plan, heads(in.output), lse_view()};
    const AttentionTasks tasks(call, {});
    for (index_t i = 0; i < tasks.size(); ++i) {
      attend<simd::native>(call, tasks[i], scratch.data());
    }
  }
  static index_t scratch_size(index_t d) {
    return std::max(attention_scratch_size<T>(d), attend_backward_scratch_size<T>(d));
  }
  template <class E>
  HeadsView<E> heads(Buffer<E>& x) const {
    return {x.data(), {in.tokens, in.heads, in.head_dim}};
  }
  HeadsView<const T> queries() const {
    return {in.queries.data(), {in.tokens, in.heads, in.head_dim}};
  }
  TensorView<float, 2> lse_view() { return {lse.data(), {in.heads, in.tokens}}; }
  Panels panels() {
    return {in.key_panels.data(), in.value_panels.data(), plan.key_slots, in.heads, in.head_dim};
  }
  void run(const Executor& executor) {
    const Panels rows{in.key_panels.data(), key_rows.data(), plan.key_slots, in.heads, in.head_dim};
    const Panels columns{value_columns.data(), nullptr, plan.key_slots, in.heads, in.head_dim};
    const AttentionGradientBranch<T> branch{queries(), rows, heads(dq), heads(dk)};
    const AttentionGradientCall<T> call{.branches = {&branch, 1},
                                        .values = columns,
                                        .plan = &plan,
                                        .output = heads(in.output),
                                        .lse = lse_view(),
                                        .d_output = heads(d_output),
                                        .d_values = heads(dv)};
    for_each_dealt(executor, in.heads, [&](index_t head, index_t worker) {
      for (index_t first = 0; first < in.tokens; first += panel_width) {
        transpose_panels<simd::native>(panels(), head, first,
                                       std::min(panel_width, in.tokens - first), rows, columns);
      }
      attend_backward<simd::native>(call, 0, head,
                                    scratch.data() + worker % in.heads * scratch_size(in.head_dim));
    });
  }
  /// The gradient of the last query of head 0 by the formula, which all keys go into.
  std::string fault() {
    run(threads.executor());
    const index_t n = in.tokens, d = in.head_dim, row = in.heads * d;
    const auto at = [](const auto& x, index_t i) { return static_cast<double>(to_float(x[i])); };
    std::vector<double> p, dp, right(static_cast<std::size_t>(d));
    double sum = 0, delta = 0;
    for (index_t j = 0; j < n; ++j) {
      double s = 0, g = 0;
      for (index_t c = 0; c < d; ++c) {
        s += at(in.queries, (n - 1) * row + c) * at(in.keys, j * row + c);
        g += at(d_output, (n - 1) * row + c) * at(in.values, j * row + c);
      }
      p.push_back(std::exp2(s)), dp.push_back(g);
      sum += p.back();
    }
    for (std::size_t j = 0; j < p.size(); ++j) delta += p[j] / sum * dp[j];
    double worst = 0, largest = 0;
    for (std::size_t j = 0; j < p.size(); ++j) {
      const double ds = p[j] / sum * (dp[j] - delta) * ln_2;
      for (index_t c = 0; c < d; ++c) {
        right[static_cast<std::size_t>(c)] += ds * at(in.keys, static_cast<index_t>(j) * row + c);
      }
    }
    for (index_t c = 0; c < d; ++c) {
      const double r = right[static_cast<std::size_t>(c)];
      largest = std::max(largest, std::fabs(r));
      worst = worse(worst, std::fabs(at(dq, (n - 1) * row + c) - r));
    }
    return fault_of(worst / largest, std::is_same_v<T, float> ? 2e-5 : 1e-2);
  }
  Work work() const {
    const double n = static_cast<double>(in.tokens);
    return {.flops = static_cast<double>(in.heads * in.head_dim) * 5 * n * (n + 1),
            .executor = threads.executor(),
            .parts = in.heads,
            .bf16s = std::is_same_v<T, bf16>};
  }
};

template <class T>
void add_dtype() {
  for (const index_t d : {64, 128}) {
    for (const index_t n : {512, 2048, 8192}) {
      for (const index_t t : {1, 2}) {
        add("attention/backward/d" + std::to_string(d) + "/n" + std::to_string(n) + "/" +
                dtype_and_threads<T>(t),
            [=] { return Backward<T>(n, d, t); });
      }
    }
  }
}

bool add_all() {
  add_dtype<float>();
  add_dtype<bf16>();
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
