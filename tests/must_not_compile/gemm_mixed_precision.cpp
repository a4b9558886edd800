// SPDX-License-Identifier: Apache-2.0
/// \file
/// Weights in double do not slip into the product of floats.
// EXPECT: (conflicting types|deduced conflicting|mismatched types)

#include "ropewalk/linalg/gemm.hpp"

#ifdef MISUSE
void multiply(const float* a, const ropewalk::PackedMatrix<double>& w, float* c) {
#else
void multiply(const float* a, const ropewalk::PackedMatrix<float>& w, float* c) {
#endif
  ropewalk::gemm<ropewalk::simd::portable>(a, 64, 1, w, c, 64);
}
