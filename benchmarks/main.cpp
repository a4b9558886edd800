// SPDX-License-Identifier: Apache-2.0
/// \file
/// Google Benchmark's main, but a wrong result and a filter without matches are exit codes.

#include "harness.hpp"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("isa", ropewalk::simd::native::name);
  const bool found = benchmark::RunSpecifiedBenchmarks() > 0;
  benchmark::Shutdown();
  return !found ? 2 : bench::failures() == 0 ? 0 : 1;
}
