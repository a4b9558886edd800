// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

namespace cli {

std::vector<KernelTable<float>> available_kernels() {
  std::vector<KernelTable<float>> tables;
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
  tables.push_back(make_kernel_table<simd::avx512>());
#endif
#if defined(__AVX2__) && defined(__FMA__)
  tables.push_back(make_kernel_table<simd::avx2>());
#endif
  tables.push_back(make_kernel_table<simd::portable>());
  return tables;
}

KernelTable<float> choose_kernels(const std::string& isa) {
  const std::vector<KernelTable<float>> tables = available_kernels();
  std::string names;
  for (const KernelTable<float>& table : tables) {
    if (isa == "auto" || isa == table.isa) return table;
    names += (names.empty() ? "" : ", ") + std::string(table.isa);
  }
  fail({.kind = ErrorClass::unsupported,
        .field = "--isa",
        .found = escaped(isa),
        .expected = "one that this executable was compiled with: " + names});
}

void check_machine() {
#if defined(__x86_64__)
  bool fits = true;
#if defined(__AVX512F__)
  fits = fits && __builtin_cpu_supports("avx512f");
#endif
#if defined(__AVX2__)
  fits = fits && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  if (fits) return;
  fail({.kind = ErrorClass::unsupported,
        .found = "a processor without the instructions this executable was compiled for",
        .fix = "Build it on this machine, or with another ROPEWALK_ARCH"});
#endif
}

}  // namespace cli
