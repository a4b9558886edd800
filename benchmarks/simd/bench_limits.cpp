// SPDX-License-Identifier: Apache-2.0
/// \file
/// The limits themselves, as benchmarks: what all shares are shares of.

#include "harness.hpp"

namespace bench {
namespace {

/// A limit beside itself: its share says how quiet the machine is.
/// The rate of one probe is the result here, not the time that the probe takes.
bool add_limit(const std::string& name, const char* counter, const Work& work) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    const std::function<double()> probe = work.limit();
    const double limit = probe();
    double sum = 0;
    for (auto _ : state) sum += probe();
    const double rate = sum / static_cast<double>(state.iterations());
    state.counters[counter] = rate;
    state.counters["limit"] = limit;
    state.counters["share_of_limit"] = rate / limit;
  });
  return true;
}

bool add_traffic(const std::string& op, Traffic traffic) {
  for (const index_t kib : {32, 1024, 16384, 262144}) {
    add_limit("simd/" + op + "/" + std::to_string(kib) + "KiB/f32", "gbps",
              {.traffic = traffic, .working_set = static_cast<double>(kib) * 1024});
  }
  return true;
}

[[maybe_unused]] const bool added[] = {
    add_limit("simd/fma/registers/f32", "gflops", {.flops = 1}),
    add_limit("simd/fma/registers/bf16", "gflops", {.flops = 1, .bf16s = true}),
    add_traffic("read", Traffic::read),
    add_traffic("write", Traffic::write),
    add_traffic("update", Traffic::update),
    add_traffic("copy", Traffic::copy),
};

}  // namespace
}  // namespace bench
