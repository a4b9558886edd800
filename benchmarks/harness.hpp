// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// How a kernel is measured: checked first, timed in short slices with a probe of the machine's
/// limit between any two, reported with its share of that limit.

#include <concepts>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>

#include "ropewalk/core/thread_pool.hpp"

#include "measure/largest_error.hpp"
#include "measure/machine_limits.hpp"
#include "slices.hpp"

namespace bench {

using namespace ropewalk;
using namespace measure;

/// Calls f.template operator()<Arch>() for the instruction set that products of T are measured
/// with: that of this build, and matrix tiles for bf16 where the machine has them.
template <class T, class F>
decltype(auto) with_instructions(F&& f) {
#if defined(ROPEWALK_AMX)
  static const bool has_tiles = simd::request_matrix_tiles();
  if (std::is_same_v<T, bf16> && has_tiles) return f.template operator()<simd::amx>();
#endif
  return f.template operator()<simd::native>();
}

/// What one run of a kernel does, and thereby what limits it.
struct Work {
  double flops = 0;  ///< where not 0: against multiply-adds from registers
  double bytes = 0;  ///< otherwise: against streaming `traffic` through `working_set` bytes
  Traffic traffic = Traffic::read;
  double working_set = 0;
  Executor executor = {};
  index_t parts = 1;   ///< workers among which run(executor) can be divided at no cost
  bool bf16s = false;  ///< the flops are of products of bf16 operands

  /// Measures GFLOP/s or GB/s, every time within about half a millisecond.
  std::function<double()> limit() const {
    const TimeBase base = time_base_of(executor);
    if (flops > 0) {
      const auto probe_of = [&]<class T>(T) {
        return with_instructions<T>([]<class Arch>() { return fma_probe<Arch, T>(); });
      };
      const FmaProbe probe = bf16s ? probe_of(bf16{}) : probe_of(float{});
      const index_t rounds = fma_rounds(probe, 0.3e-3);
      return [=, e = executor] { return fma_gflops_of(probe, rounds, e, base); };
    }
    auto probe = std::make_shared<MemoryProbe<simd::native>>(traffic, working_set, executor);
    return [probe] { return probe->gbps(); };
  }
};

/// Something that can be timed. fault() runs the kernel once and compares its results with
/// reference arithmetic: what is wrong, or an empty text. Either run() or run(executor), whose
/// workers share the work.
template <class T>
concept Problem = requires(T& t, const Executor& executor) {
  { t.fault() } -> std::same_as<std::string>;
  { t.work() } -> std::same_as<Work>;
  requires requires { t.run(); } || requires {
    t.run(executor);
  };
};

/// Failed checks; the executable's exit code.
inline int& failures() {
  static int count = 0;
  return count;
}

namespace detail {

template <class P>
void run_once(P& problem, const Executor& executor) {
  if constexpr (requires { problem.run(executor); }) {
    problem.run(executor);
  } else {
    problem.run();
  }
}

/// The problem at hand. Only one is kept: some are half a gigabyte.
struct Current {
  std::string name;
  std::shared_ptr<void> problem;
  std::string fault;
  std::function<double()> limit;
  double seconds = 0;  ///< of one run, roughly
};
inline Current& current() {
  static Current c;
  return c;
}

/// Makes the problem, checks it, and sees how long it takes.
template <class Make>
void prepare(Current& c, const std::string& name, const Make& make) {
  using P = decltype(make());
  c = {};
  c.name = name;
  try {
    auto made = std::make_shared<P>(make());
    c.fault = made->fault();
    if (c.fault.empty()) {
      const Work work = made->work();
      const TimeBase base = time_base_of(work.executor);
      const double start = seconds_now(base);
      run_once(*made, work.executor);
      c.seconds = seconds_now(base) - start;
      c.limit = work.limit();
    }
    c.problem = std::move(made);
  } catch (const std::exception& error) {
    c.fault = error.what();
  }
  if (!c.fault.empty()) ++failures();
}

template <class Make>
void run_problem(benchmark::State& state, const std::string& name, const Make& make) {
  using P = decltype(make());
  Current& c = current();
  if (c.name != name) prepare(c, name, make);
  if (!c.fault.empty()) {
    state.SkipWithError(c.fault.c_str());
    return;
  }
  P& problem = *static_cast<P*>(c.problem.get());
  const Work work = problem.work();
  const double amount = work.flops > 0 ? work.flops : work.bytes;

  // Between slices the benchmark's own clock stands still.
  SliceClock clock(
      [&] {
        state.PauseTiming();
        const double limit = c.limit();
        // Streaming has emptied the caches of what the kernel finds there when it runs by itself.
        if (work.flops == 0) run_once(problem, work.executor);
        state.ResumeTiming();
        return limit;
      },
      time_base_of(work.executor));
  const auto slices = static_cast<index_t>(c.seconds / slice_seconds) + 1;
  SlicedThread thread(std::min(slices, work.parts), clock);
  const Executor executor = work.executor.workers() == 1 ? thread.executor() : work.executor;
  const auto runs = static_cast<index_t>(slice_seconds / c.seconds) + 1;
  Samples samples;
  while (state.KeepRunningBatch(runs)) {
    clock.start();
    for (index_t i = 0; i < runs; ++i) run_once(problem, executor);
    samples.add(clock.stop(), amount * static_cast<double>(runs));
  }
  const Samples::Summary found = samples.summary();
  state.counters[work.flops > 0 ? "gflops" : "gbps"] = found.rate;
  state.counters["limit"] = found.limit;
  state.counters["share_of_limit"] = found.share;
  state.counters["quiet"] = found.quiet;
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

/// The end of a benchmark's name.
template <class T>
std::string dtype_and_threads(index_t threads = 1) {
  return std::string(std::is_same_v<T, float> ? "f32" : "bf16") +
         (threads == 1 ? "" : "/threads:" + std::to_string(threads));
}

/// Threads of a problem that runs on one or on several.
class Threads {
 public:
  explicit Threads(index_t count)
      : pool_(count > 1 ? std::make_unique<ThreadPool>(count) : nullptr) {}
  Executor executor() const { return pool_ ? pool_->executor() : Executor{}; }
  index_t count() const { return executor().workers(); }

 private:
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace bench
