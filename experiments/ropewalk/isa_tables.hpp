// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What an instruction set brings to the executable, as plain data: kernel tables and a probe.

#include <type_traits>

#include "ropewalk/model/kernel_table.hpp"
#include "ropewalk/train/training_kernels.hpp"

#include "measure/machine_limits.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Everything that is compiled once an instruction set.
struct IsaTables {
  const char* name = "";
  KernelTable<float> f32 = {};
  KernelTable<bf16> b16 = {};
  TrainingKernels<float> train = {};
  TrainingKernels<bf16> train_b16 = {};
  measure::FmaProbe fma = {};      ///< the limit of f32
  measure::FmaProbe fma_b16 = {};  ///< the limit of bf16

  const char* isa() const { return name; }
  template <class T>
  const KernelTable<T>& kernels() const {
    if constexpr (std::is_same_v<T, bf16>) {
      return b16;
    } else {
      return f32;
    }
  }
  template <class T>
  const TrainingKernels<T>& training() const {
    if constexpr (std::is_same_v<T, bf16>) {
      return train_b16;
    } else {
      return train;
    }
  }
  template <class T>
  const measure::FmaProbe& limit() const {
    return std::is_same_v<T, bf16> ? fma_b16 : fma;
  }
};

static_assert(std::is_trivially_copyable_v<IsaTables>);  // it crosses units as bytes

/// Of a set with matrix tiles what they multiply alone: all else is that of another set.
template <simd::FusedInstructionSet Arch>
requires simd::has_matrix_tiles<Arch> IsaTables make_isa_tables() {
  return {.name = Arch::name,
          .b16 = make_kernel_table<Arch, bf16>(),
          .train_b16 = {.numerics = training_numerics_id_of<Arch, bf16>,
                        .token_group = token_group<Arch, bf16>,
                        .multiply_add_inputs = &gemm_add_inputs<Arch, bf16>,
                        .add_weight_gradient = &add_weight_gradient<Arch, bf16>,
                        .attend_backward = &attend_backward<Arch, bf16>,
                        .head_nll_lse = &head_nll_lse<Arch, bf16>,
                        .head_gradient = &head_gradient<Arch, bf16>},
          .fma_b16 = measure::fma_probe<Arch, bf16>()};
}
/// `rest` with the kernels of `tiles`, a set with matrix tiles.
inline IsaTables with_matrix_tiles(IsaTables rest, const IsaTables& tiles) {
  rest.name = tiles.name;
  rest.b16 = tiles.b16;
  rest.fma_b16 = tiles.fma_b16;
  rest.train_b16.numerics = tiles.train_b16.numerics;
  rest.train_b16.token_group = tiles.train_b16.token_group;
  rest.train_b16.forward = tiles.b16;
  rest.train_b16.multiply_add_inputs = tiles.train_b16.multiply_add_inputs;
  rest.train_b16.add_weight_gradient = tiles.train_b16.add_weight_gradient;
  rest.train_b16.attend_backward = tiles.train_b16.attend_backward;
  rest.train_b16.head_nll_lse = tiles.train_b16.head_nll_lse;
  rest.train_b16.head_gradient = tiles.train_b16.head_gradient;
  return rest;
}

template <simd::FusedInstructionSet Arch>
IsaTables make_isa_tables() {
  return {.name = Arch::name,
          .f32 = make_kernel_table<Arch>(),
          .b16 = make_kernel_table<Arch, bf16>(),
          .train = make_training_kernels<Arch>(),
          .train_b16 = make_training_kernels<Arch, bf16>(),
          .fma = measure::fma_probe<Arch>(),
          .fma_b16 = measure::fma_probe<Arch, bf16>()};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
