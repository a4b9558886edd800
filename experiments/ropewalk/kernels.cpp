// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <algorithm>

#if __has_include("isa_units.hpp")
#include "isa_units.hpp"  // written by CMake: the units of kernels compiled apart
#else
#include <cstddef>
namespace ropewalk_build {
struct IsaUnit {
  std::string_view isa;
  const char* (*get)(void* tables, std::size_t size);
};
inline std::vector<IsaUnit> isa_units() { return {}; }
}  // namespace ropewalk_build
#endif

namespace cli {

namespace {

/// Whether processor and operating system have what the unit of that name is compiled with.
bool machine_has(std::string_view isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (isa == "avx2") return avx2;
  if (isa == "avx512") return avx512;
  const bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (isa == "avx512bf16") return avx512bf16;
  if (isa == "amx") return avx512bf16 && simd::request_matrix_tiles();
#endif
  static_cast<void>(isa);
  return false;
}

/// Whether dot products of bf16 pairs are faster than float multiply-adds of widened operands,
/// which reach about two thirds of their limit. On some processors they are not: on a Xeon of 2023
/// (family 6 model 207) they have 0.47 times the rate of the others.
bool pairs_pay(const IsaTables& set) {
  const auto rate = [](const measure::FmaProbe& probe) {
    double best = 0;
    for (int i = 0; i < 5; ++i) {  // some tens of microseconds each
      best = std::max(best, measure::fma_gflops_of(probe, 1 << 12, {}, measure::TimeBase::thread));
    }
    return best;
  };
  return rate(set.fma_b16) > 0.7 * rate(set.fma);
}

}  // namespace

const std::vector<IsaTables>& available_kernels() {
  static const std::vector<IsaTables> all = [] {
    std::vector<IsaTables> tables;
    for (const auto& unit : ropewalk_build::isa_units()) {
      IsaTables out;
      if (machine_has(unit.isa) && unit.get(&out, sizeof out) == unit.isa) tables.push_back(out);
    }
    // What this file itself is compiled for: on x86-64 without sanitizers portable alone.
    const auto add = [&](const IsaTables& set) {
      const auto same = [&](const IsaTables& t) { return std::string_view(t.isa()) == set.isa(); };
      if (std::none_of(tables.begin(), tables.end(), same)) tables.push_back(set);
    };
#if defined(ROPEWALK_AMX)
    if (machine_has("amx")) add(make_isa_tables<simd::amx>());
#endif
    add(make_isa_tables<simd::native>());
#if defined(__AVX512F__) && defined(__AVX2__) && defined(__FMA__)
    add(make_isa_tables<simd::avx2>());
#endif
    add(make_isa_tables<simd::portable>());
    for (std::size_t i = tables.size() - 1; i-- > 0;) {
      const std::string_view name = tables[i].isa();
      if (name == "avx512bf16" && !pairs_pay(tables[i])) {
        tables[i].b16 = tables[i + 1].b16;  // the next best set widens, and gives the same bits
        tables[i].train_b16 = tables[i + 1].train_b16;
        tables[i].fma_b16 = tables[i + 1].fma_b16;
      }
      if (name == "amx") tables[i] = with_matrix_tiles(tables[i + 1], tables[i]);
    }
    return tables;
  }();
  return all;
}

const IsaTables& choose_kernels(const std::string& isa) {
  std::string names;
  for (const IsaTables& set : available_kernels()) {
    if (isa == "auto" || isa == set.isa()) return set;
    names += (names.empty() ? "" : ", ") + std::string(set.isa());
  }
  fail({.kind = ErrorClass::unsupported,
        .field = "--isa",
        .found = escaped(isa),
        .expected = "one that this executable has and this machine can run: " + names});
}

std::string compiled_isas() {
  std::string text;
  for (const auto& unit : ropewalk_build::isa_units()) {
    const std::string name(unit.isa);
    text += machine_has(unit.isa) ? name + ", " : "(" + name + "), ";
  }
  for (const IsaTables& set : available_kernels()) {
    const std::string name(set.isa());
    if (text.find(name + ", ") == std::string::npos) text += name + ", ";
  }
  return text.substr(0, text.size() - 2);
}

void check_machine() {
#if defined(__AVX512F__)
  const bool fits = machine_has("avx512");
#elif defined(__AVX2__)
  const bool fits = machine_has("avx2");
#else
  const bool fits = true;
#endif
  if (fits) return;
  fail({.kind = ErrorClass::unsupported,
        .found = "a processor without the instructions this executable was compiled for",
        .fix = "Build it on this machine, or with ROPEWALK_DISPATCH=ON"});
}

}  // namespace cli
