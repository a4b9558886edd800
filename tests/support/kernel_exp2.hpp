// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The polynomial by which kernels of bf16 make weights, in double.

#include <cmath>

#include "ropewalk/simd/math.hpp"

namespace ropewalk {

/// 2^x, 1.45e-4 off: what rounds weights must round the kernels' numbers.
inline double kernel_exp2(double x) {
  const double n = std::nearbyint(x);
  double poly = 0;
  for (const float c : simd::exp2_degree_3) poly = poly * (x - n) + static_cast<double>(c);
  return std::ldexp(poly, static_cast<int>(n));
}

}  // namespace ropewalk
