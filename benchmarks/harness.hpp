// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// How a kernel is measured: checked first, timed beside the limit of that moment, reported with
/// its share of it.

#include <algorithm>
#include <concepts>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>

#include "measure/largest_error.hpp"
#include "measure/machine_limits.hpp"

namespace bench {

using namespace ropewalk;
using namespace measure;

/// What one run of a kernel does, and thereby what limits it.
struct Work {
  double flops = 0;  ///< where not 0: against multiply-adds from registers
  double bytes = 0;  ///< otherwise: against streaming `traffic` through `working_set` bytes
  Traffic traffic = Traffic::read;
  double working_set = 0;
  Executor executor = {};

  /// GFLOP/s or GB/s, measured now.
  double limit() const {
    return flops > 0 ? fma_gflops<simd::native>(executor)
                     : memory_gbps<simd::native>(traffic, working_set, executor);
  }
};

/// Something that can be timed. fault() runs the kernel once and compares its results with
/// reference arithmetic: what is wrong, or an empty text.
template <class T>
concept Problem = requires(T& t) {
  { t.fault() } -> std::same_as<std::string>;
  { t.run() } -> std::same_as<void>;
  { t.work() } -> std::same_as<Work>;
};

/// Failed checks; the executable's exit code.
inline int& failures() {
  static int count = 0;
  return count;
}

namespace detail {

/// The problem at hand. Only one is kept: some are half a gigabyte.
struct Current {
  std::string name;
  std::shared_ptr<void> problem;
  std::string fault;
};
inline Current& current() {
  static Current c;
  return c;
}

template <class Make>
void run_problem(benchmark::State& state, const std::string& name, const Make& make) {
  using P = decltype(make());
  Current& c = current();
  if (c.name != name) {
    c = {};
    try {
      auto made = std::make_shared<P>(make());
      c.fault = made->fault();
      c.problem = std::move(made);
    } catch (const std::exception& error) {
      c.fault = error.what();
    }
    c.name = name;
    if (!c.fault.empty()) ++failures();
  }
  if (!c.fault.empty()) {
    state.SkipWithError(c.fault.c_str());
    return;
  }
  P& problem = *static_cast<P*>(c.problem.get());
  const Work work = problem.work();
  const TimeBase base = time_base_of(work.executor);
  double limit = work.limit();
  const double start = seconds_now(base);
  for (auto _ : state) problem.run();
  const double seconds = seconds_now(base) - start;
  limit = std::max(limit, work.limit());
  const double amount = work.flops > 0 ? work.flops : work.bytes;
  const double rate = amount * 1e-9 * static_cast<double>(state.iterations()) / seconds;
  state.counters[work.flops > 0 ? "gflops" : "gbps"] = rate;
  state.counters["limit"] = limit;
  state.counters["share_of_limit"] = rate / limit;
}

}  // namespace detail

/// Adds a benchmark `layer/op/shape/dtype`. make() gives its Problem when it first runs. Returns
/// true, so that it can initialise a constant.
template <class Make>
requires Problem<decltype(std::declval<Make>()())>
bool add(const std::string& name, Make make) {
  benchmark::RegisterBenchmark(name.c_str(), [name, make](benchmark::State& state) {
    detail::run_problem(state, name, make);
  });
  return true;
}

/// What Problem::fault() says of the largest error among the results looked at.
inline std::string fault_of(double error, double allowed) {
  if (error <= allowed) return {};  // false for NaN
  return "wrong result: error " + std::to_string(error) + ", allowed " + std::to_string(allowed);
}

}  // namespace bench
