// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// KernelTable: the only door through which model, train and eval reach SIMD code.

#include "ropewalk/attention/blockwise.hpp"
#include "ropewalk/linalg/rows.hpp"
#include "ropewalk/model/head.hpp"
#include "ropewalk/rope/rotate.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Kernels of one instruction set for weights stored as T, as plain function pointers, so that the
/// set can be chosen at run time, once per model. What each does is said where it is defined.
template <class T>
struct KernelTable {
  const char* isa = "";
  decltype(&gemm<simd::portable>) multiply = nullptr;
  decltype(&gemm_add<simd::portable>) multiply_add = nullptr;
  decltype(&ropewalk::rmsnorm<simd::portable>) rmsnorm = nullptr;
  decltype(&ropewalk::swiglu<simd::portable>) swiglu = nullptr;
  void (*rotate_head)(PairLayout, float*, const float*, const float*, index_t,
                      Rotation) noexcept = nullptr;
  decltype(&ropewalk::attend<simd::portable>) attend = nullptr;
  decltype(&ropewalk::head_nll<simd::portable>) head_nll = nullptr;
};

/// The table of instruction set Arch.
template <simd::FusedInstructionSet Arch>
KernelTable<float> make_kernel_table() {
  return {.isa = Arch::name,
          .multiply = &gemm<Arch>,
          .multiply_add = &gemm_add<Arch>,
          .rmsnorm = &ropewalk::rmsnorm<Arch>,
          .swiglu = &ropewalk::swiglu<Arch>,
          .rotate_head = &ropewalk::rotate_head<Arch>,
          .attend = &ropewalk::attend<Arch>,
          .head_nll = &ropewalk::head_nll<Arch>};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
