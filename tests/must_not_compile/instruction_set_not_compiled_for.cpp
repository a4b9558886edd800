// SPDX-License-Identifier: Apache-2.0
/// \file
/// Kernels of an instruction set exist only in units compiled for it (here: the baseline).
// EXPECT: 'avx512' in namespace .* does not name a type|no type named 'avx512' in

#include "ropewalk/rope/rotate.hpp"

void turn(float* x, const float* cos, const float* sin) {
#ifdef MISUSE
  using Arch = ropewalk::simd::avx512;
#else
  using Arch = ropewalk::simd::native;
#endif
  ropewalk::rotate_head<Arch>(ropewalk::PairLayout::half_split, x, cos, sin, 32,
                              ropewalk::Rotation::forward);
}
