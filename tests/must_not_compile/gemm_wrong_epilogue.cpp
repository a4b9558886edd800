// SPDX-License-Identifier: Apache-2.0
/// \file
/// An epilogue finishes 16 sums at (row, column); one for single floats is refused by name.
// EXPECT: (satisfaction of|because) 'GemmEpilogue

#include "ropewalk/linalg/gemm.hpp"

using ropewalk::index_t;
using Arch = ropewalk::simd::portable;
#ifdef MISUSE
using Sums = float;
#else
using Sums = ropewalk::simd::Floats<Arch>;
#endif

void multiply(const float* a, const ropewalk::PackedMatrix<float>& w) {
  ropewalk::multiply_packed<Arch>(a, 64, 1, w, [](index_t, index_t, Sums) {});
}
