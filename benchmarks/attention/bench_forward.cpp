// SPDX-License-Identifier: Apache-2.0
/// \file
/// Causal attention of one head of plain tensors, everything included (panels, mask, buffers), the
/// masked half not credited; and decoding, one query row against a cache.

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/core/thread_pool.hpp"

#include "harness.hpp"
#include "measure/attention_input.hpp"

namespace bench {
namespace {

/// Queries whose scores have about the size of a model's: deviation 1 in natural units.
double query_deviation(index_t head_dim) {
  return log2_e / std::sqrt(static_cast<double>(head_dim));
}

/// What attend() promises, of the largest |value|.
constexpr double allowed_error = 2e-6;

struct Forward {
  index_t heads;
  AttentionInput in;
  std::unique_ptr<ThreadPool> pool;

  Forward(index_t n, index_t d, index_t threads)
      : heads(threads),
        in(n, heads, heads, d, 0, query_deviation(d)),
        pool(threads > 1 ? std::make_unique<ThreadPool>(threads) : nullptr) {}
  Executor executor() const { return pool ? pool->executor() : Executor{}; }
  void run() {
    const std::array<index_t, 3> extents = {in.tokens, heads, in.head_dim};
    // The scale makes up for log2(e), which the queries carry already.
    attention(HeadsView<const float>(in.queries.data(), extents),
              HeadsView<const float>(in.keys.data(), extents),
              HeadsView<const float>(in.values.data(), extents), Causal{},
              HeadsView<float>(in.output.data(), extents), {},
              {.softmax_scale = 1 / log2_e, .executor = executor()});
  }
  std::string fault() {
    run();
    double worst = 0;
    for (const index_t t : {index_t{0}, index_t{1}, index_t{95}, index_t{96}, in.tokens / 3,
                            in.tokens - 2, in.tokens - 1}) {
      worst = worse(worst, in.error_of_row(t));
    }
    return fault_of(worst, allowed_error);
  }
  Work work() const {
    const double n = static_cast<double>(in.tokens);
    return {.flops = static_cast<double>(heads * in.head_dim) * 2 * n * (n + 1),
            .executor = executor()};
  }
};

/// One token of 8 heads with keys and values of their own, all cached.
struct Decode {
  AttentionInput in;

  Decode(index_t n, index_t d) : in(1, 8, 8, d, n - 1, query_deviation(d)) {}
  void run() { in.attend(&attend<simd::native>); }
  std::string fault() {
    run();
    return fault_of(in.error_of_row(0), allowed_error);
  }
  Work work() const {
    const double bytes = 4 * static_cast<double>(in.key_panels.size() + in.value_panels.size());
    return {.bytes = bytes, .traffic = Traffic::read, .working_set = bytes};
  }
};

bool add_all() {
  const auto named = [](const std::string& op, index_t d, index_t n) {
    return "attention/" + op + "/d" + std::to_string(d) + "/n" + std::to_string(n) + "/f32";
  };
  for (const index_t d : {64, 128}) {
    for (const index_t n : {512, 2048, 8192, 32768}) {
      add(named("forward", d, n), [=] { return Forward(n, d, 1); });
    }
    add(named("forward", d, 8192) + "/threads:2", [=] { return Forward(8192, d, 2); });
    for (const index_t n : {2048, 8192}) {
      add(named("decode", d, n), [=] { return Decode(n, d); });
    }
  }
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
