// SPDX-License-Identifier: Apache-2.0
/// \file
/// An instruction set whose products and sums round twice would break the canonical arithmetic.
// EXPECT: satisf[a-z]+( of)? 'FusedInstructionSet
// EXPECT: 'rounds_fma_once'

#include "ropewalk/model/kernel_table.hpp"

struct TwoRoundings {
  static constexpr const char* name = "two_roundings";
  using xsimd_arch = xsimd::default_arch;
};

#ifdef MISUSE
using Arch = TwoRoundings;
#else
using Arch = ropewalk::simd::portable;
#endif

ropewalk::KernelTable<float> table() { return ropewalk::make_kernel_table<Arch>(); }
