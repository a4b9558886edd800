// SPDX-License-Identifier: Apache-2.0
/// \file
/// Rotation in place, shapes tokens x heads x head_dim, against updating as much memory; and the
/// making of the rows of cosines and sines, shapes tokens x head_dim.

#include <cmath>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/frequency_plan.hpp"
#include "ropewalk/rope/rotate.hpp"

#include "harness.hpp"
#include "measure/random_data.hpp"

namespace bench {
namespace {

std::vector<std::int64_t> ascending(index_t tokens) {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < positions.size(); ++t) positions[t] = static_cast<std::int64_t>(t);
  return positions;
}

struct Rotate {
  index_t tokens, heads, head_dim;
  PairLayout layout;
  FrequencyPlan plan;
  RotaryRows rows;
  Buffer<float> x;
  std::unique_ptr<ThreadPool> pool;

  Rotate(index_t n, index_t h, index_t d, PairLayout l, index_t threads)
      : tokens(n),
        heads(h),
        head_dim(d),
        layout(l),
        plan(make_frequency_plan(AdjustedBase{}, {.rotary_dim = d})),
        rows(make_rotary_rows(plan, ascending(n))),
        x(random_floats(n * h * d, 1)),
        pool(threads > 1 ? std::make_unique<ThreadPool>(threads) : nullptr) {}
  Executor executor() const { return pool ? pool->executor() : Executor{}; }
  void run() {
    rotate(HeadsView<float>(x.data(), {tokens, heads, head_dim}), rows, layout, Rotation::forward,
           executor());
  }
  std::string fault() {
    const Buffer<float> before = random_floats(x.size(), 1);
    run();
    const index_t pairs = head_dim / 2;
    double worst = 0;
    for (const index_t t : {index_t{0}, index_t{1}, tokens / 3, tokens - 1}) {
      for (index_t i = 0; i < heads * pairs; ++i) {
        const index_t head = (t * heads + i / pairs) * head_dim, p = i % pairs;
        const bool half = layout == PairLayout::half_split;
        const index_t first = head + (half ? p : 2 * p), second = half ? first + pairs : first + 1;
        const double u = static_cast<double>(before[first]);
        const double v = static_cast<double>(before[second]);
        const double angle = plan.inv_freq[static_cast<std::size_t>(p)] * static_cast<double>(t);
        const double size = std::hypot(u, v);
        const double c = std::cos(angle), s = std::sin(angle);
        worst = worse(worst, std::fabs(static_cast<double>(x[first]) - (u * c - v * s)) / size);
        worst = worse(worst, std::fabs(static_cast<double>(x[second]) - (v * c + u * s)) / size);
      }
    }
    return fault_of(worst, 2e-7);  // what rotate_head() promises
  }
  Work work() const {
    const double elements = static_cast<double>(x.size());
    const double table = 4 * static_cast<double>(tokens * head_dim);
    return {.bytes = 8 * elements + table,
            .traffic = Traffic::update,
            .working_set = 4 * elements,
            .executor = executor()};
  }
};

struct MakeRows {
  std::vector<std::int64_t> positions;
  FrequencyPlan plan;
  AnglePrecision precision;
  bool again;  // into the memory of the rows before
  RotaryRows rows = {};

  MakeRows(index_t tokens, index_t head_dim, AnglePrecision p, bool a = false)
      : positions(ascending(tokens)),
        plan(make_frequency_plan(AdjustedBase{}, {.rotary_dim = head_dim})),
        precision(p),
        again(a) {}
  void run() {
    if (!again) rows = {};
    rows.clear();
    append_rotary_rows(rows, plan, positions, precision);
  }
  std::string fault() {
    run();
    double worst = 0;
    for (std::size_t t = 0; t < positions.size(); t += 511) {
      for (std::size_t i = 0; i < plan.inv_freq.size(); ++i) {
        const double angle = plan.inv_freq[i] * static_cast<double>(positions[t]);
        const auto at = static_cast<std::size_t>(rows.row[t]) * plan.inv_freq.size() + i;
        worst = worse(worst, std::fabs(static_cast<double>(rows.cos[at]) - std::cos(angle)));
        worst = worse(worst, std::fabs(static_cast<double>(rows.sin[at]) - std::sin(angle)));
      }
    }
    // Exact rows: half a unit of a float. The float modes' own errors at 8192 are documented.
    return fault_of(worst, precision == AnglePrecision::exact ? 3.1e-8 : 5e-3);
  }
  Work work() const {
    const double bytes =
        8 * static_cast<double>(positions.size()) * static_cast<double>(plan.inv_freq.size());
    return {.bytes = bytes, .traffic = Traffic::write, .working_set = bytes};
  }
};

bool add_all() {
  for (const index_t threads : {1, 2}) {
    const std::string suffix = threads == 1 ? "" : "/threads:" + std::to_string(threads);
    for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
      const std::string op = layout == PairLayout::half_split ? "rotate" : "rotate_interleaved";
      add("rope/" + op + "/2048x16x128/f32" + suffix,
          [=] { return Rotate(2048, 16, 128, layout, threads); });
    }
  }
  add("rope/rotate/96x4x64/f32", [] { return Rotate(96, 4, 64, PairLayout::half_split, 1); });
  add("rope/rotate_interleaved/96x4x64/f32",
      [] { return Rotate(96, 4, 64, PairLayout::interleaved, 1); });
  add("rope/make_rows/8192x128/f32", [] { return MakeRows(8192, 128, AnglePrecision::exact); });
  add("rope/make_rows_again/8192x128/f32",
      [] { return MakeRows(8192, 128, AnglePrecision::exact, true); });
  add("rope/make_rows/1x128/f32", [] { return MakeRows(1, 128, AnglePrecision::exact); });
  add("rope/make_rows_ggml/8192x128/f32",
      [] { return MakeRows(8192, 128, AnglePrecision::ggml_float32); });
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
