// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// KernelTable: the only door through which model, train and eval reach SIMD code.

#include "ropewalk/attention/blockwise.hpp"
#include "ropewalk/linalg/rows.hpp"
#include "ropewalk/model/head.hpp"
#include "ropewalk/rope/rotate.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The numerics_id of results of Arch's kernels for operands stored as T.
template <class Arch, class T>
inline constexpr const char* numerics_id_of =
    simd::takes_matrix_tiles<Arch, T> ? matrix_tile_numerics_id : numerics_id;

/// Kernels of one instruction set for operands stored as T, as plain function pointers, so that the
/// set can be chosen at run time, once per model. What each does is said where it is defined.
template <class T>
struct KernelTable {
  const char* isa = "";
  const char* numerics = "";  ///< numerics_id of its results
  decltype(&gemm<simd::portable, T>) multiply = nullptr;
  decltype(&gemm_add<simd::portable, T>) multiply_add = nullptr;
  decltype(&gemm_swiglu<simd::portable, T>) multiply_swiglu = nullptr;
  decltype(&ropewalk::rmsnorm<simd::portable, T>) rmsnorm = nullptr;
  void (*rotate_head)(PairLayout, float*, const float*, const float*, index_t,
                      Rotation) noexcept = nullptr;
  decltype(&ropewalk::rotate_head_to<simd::portable, T>) rotate_head_to = nullptr;
  decltype(&ropewalk::store_keys<simd::portable, T>) store_keys = nullptr;
  decltype(&ropewalk::store_values<simd::portable, T>) store_values = nullptr;
  decltype(&ropewalk::attend<simd::portable, T>) attend = nullptr;
  decltype(&ropewalk::head_nll<simd::portable, T>) head_nll = nullptr;
};

/// The table of instruction set Arch.
template <simd::FusedInstructionSet Arch, class T = float>
KernelTable<T> make_kernel_table() {
  return {.isa = Arch::name,
          .numerics = numerics_id_of<Arch, T>,
          .multiply = &gemm<Arch, T>,
          .multiply_add = &gemm_add<Arch, T>,
          .multiply_swiglu = &gemm_swiglu<Arch, T>,
          .rmsnorm = &ropewalk::rmsnorm<Arch, T>,
          .rotate_head = &ropewalk::rotate_head<Arch>,
          .rotate_head_to = &ropewalk::rotate_head_to<Arch, T>,
          .store_keys = &ropewalk::store_keys<Arch, T>,
          .store_values = &ropewalk::store_values<Arch, T>,
          .attend = &ropewalk::attend<Arch, T>,
          .head_nll = &ropewalk::head_nll<Arch, T>};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
