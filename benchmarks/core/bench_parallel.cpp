// SPDX-License-Identifier: Apache-2.0
/// \file
/// What a parallel region costs beyond its work: regions of `work` microseconds on every thread,
/// 5 microseconds of one thread between them, as in a forward pass of a small model.

#include <chrono>

#include "ropewalk/core/thread_pool.hpp"

#include "harness.hpp"

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

void keep_busy(std::chrono::microseconds time) {
  for (const auto end = Clock::now() + time; Clock::now() < end;) {
  }
}

void measure_regions(benchmark::State& state, index_t threads, std::chrono::microseconds work) {
  ThreadPool pool(threads);
  const Executor executor = pool.executor();
  double seconds = 0;
  for (auto _ : state) {
    keep_busy(std::chrono::microseconds(5));
    const auto start = Clock::now();
    executor.run([&](index_t, index_t) { keep_busy(work); });
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    state.SetIterationTime(took);
    seconds += took;
  }
  state.counters["overhead_us"] =
      1e6 * seconds / static_cast<double>(state.iterations()) - static_cast<double>(work.count());
}

bool add_all() {
  for (const index_t threads : {1, 2, 4}) {
    for (const int work : {0, 50}) {
      const std::string name = "core/parallel_region/work:" + std::to_string(work) +
                               "us/threads:" + std::to_string(threads);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        measure_regions(state, threads, std::chrono::microseconds(work));
      })->UseManualTime();
    }
  }
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
