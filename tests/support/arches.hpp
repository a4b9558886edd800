// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Runs a test body for every instruction set that the tests are compiled for.

#include <doctest/doctest.h>

#include "ropewalk/simd/arch.hpp"

/// body.template operator()<Arch>() for each.
template <class Body>
void for_each_arch(Body&& body) {
  namespace simd = ropewalk::simd;
  {
    INFO("instruction set: portable");
    body.template operator()<simd::portable>();
  }
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
}
