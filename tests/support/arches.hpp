// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Runs a test body for every instruction set that the tests are compiled for.

#include <doctest/doctest.h>

#include "ropewalk/simd/matrix_tiles.hpp"

/// Instruction sets whose results have the same bits: those of floats, which add bf16 operands up
/// in pairs, and those that take bf16 operands by matrix tiles. `Reference` runs anywhere, and all
/// others have its bits.
struct SumsOfPairs {
  using Reference = ropewalk::simd::portable;
};
struct SumsOfTiles {
  using Reference = ropewalk::simd::emulated_amx;
};

/// body.template operator()<Arch>() for each set of Sums that this machine runs. The processor's
/// matrix tiles are left out where it has none.
template <class Sums = SumsOfPairs, class Body>
void for_each_arch(Body&& body) {
  namespace simd = ropewalk::simd;
  {
    INFO("instruction set: ", Sums::Reference::name);
    body.template operator()<typename Sums::Reference>();
  }
  if constexpr (std::is_same_v<Sums, SumsOfPairs>) {
#if defined(__AVX2__) && defined(__FMA__)
    {
      INFO("instruction set: avx2");
      body.template operator()<simd::avx2>();
    }
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
    {
      INFO("instruction set: avx512");
      body.template operator()<simd::avx512>();
    }
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
    {
      INFO("instruction set: avx512bf16");
      body.template operator()<simd::avx512bf16>();
    }
#endif
#if defined(__aarch64__) && defined(__ARM_NEON)
    {
      INFO("instruction set: neon");
      body.template operator()<simd::neon>();
    }
#endif
  } else {
#if defined(ROPEWALK_AMX)
    if (simd::request_matrix_tiles()) {
      INFO("instruction set: amx");
      body.template operator()<simd::amx>();
    }
#endif
  }
}

/// body.template operator()<Arch>() for the fastest set of Sums that this machine runs.
template <class Sums = SumsOfPairs, class Body>
void with_fastest_arch(Body&& body) {
  namespace simd = ropewalk::simd;
  if constexpr (std::is_same_v<Sums, SumsOfPairs>) {
    body.template operator()<simd::native>();
  } else {
#if defined(ROPEWALK_AMX)
    if (simd::request_matrix_tiles()) return body.template operator()<simd::amx>();
#endif
    body.template operator()<simd::emulated_amx>();
  }
}
