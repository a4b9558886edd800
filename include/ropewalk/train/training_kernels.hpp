// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// TrainingKernels: the door through which training reaches SIMD code, as KernelTable is scoring's.

#include "ropewalk/attention/backward.hpp"
#include "ropewalk/attention/gradient_panels.hpp"
#include "ropewalk/linalg/rows_gradient.hpp"
#include "ropewalk/linalg/weight_gradient.hpp"
#include "ropewalk/model/head_gradient.hpp"
#include "ropewalk/model/kernel_table.hpp"
#include "ropewalk/train/adamw_kernels.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The numerics_id of what Arch's kernels train with operands stored as T.
template <class Arch, class T>
inline constexpr const char* training_numerics_id_of =
    std::is_same_v<T, float>            ? numerics_id
    : simd::takes_matrix_tiles<Arch, T> ? matrix_tile_training_numerics_id
                                        : bf16_training_numerics_id;

/// Kernels of one instruction set for training with operands of products and attention stored as T.
/// What each does is said where it is defined.
template <class T = float>
struct TrainingKernels {
  const char* numerics = "";  ///< training_numerics_id_of them
  index_t token_group = 1;    ///< tokens that add_weight_gradient() takes together
  KernelTable<T> forward = {};
  decltype(&gemm_add_inputs<simd::portable, T>) multiply_add_inputs = nullptr;
  decltype(&ropewalk::add_weight_gradient<simd::portable, T>) add_weight_gradient = nullptr;
  decltype(&ropewalk::transpose_panel<simd::portable, T>) transpose_panel = nullptr;
  decltype(&ropewalk::round_panel<simd::portable>) round_panel = nullptr;
  decltype(&ropewalk::round_rows<simd::portable>) round_rows = nullptr;
  decltype(&ropewalk::rmsnorm_gradient<simd::portable>) rmsnorm_gradient = nullptr;
  decltype(&ropewalk::norm_weight_gradient<simd::portable>) norm_weight_gradient = nullptr;
  decltype(&ropewalk::swiglu<simd::portable, T>) swiglu = nullptr;
  decltype(&ropewalk::swiglu_gradient<simd::portable, T>) swiglu_gradient = nullptr;
  decltype(&ropewalk::transpose_panels<simd::portable, T>) transpose_panels = nullptr;
  decltype(&ropewalk::attend_backward<simd::portable, T>) attend_backward = nullptr;
  decltype(&ropewalk::head_nll_lse<simd::portable, T>) head_nll_lse = nullptr;
  decltype(&ropewalk::head_gradient<simd::portable, T>) head_gradient = nullptr;
  decltype(&ropewalk::adamw_update<simd::portable>) adamw_update = nullptr;
  decltype(&ropewalk::sum_of_squares<simd::portable>) sum_of_squares = nullptr;
};

/// The table of instruction set Arch.
template <simd::FusedInstructionSet Arch, class T = float>
TrainingKernels<T> make_training_kernels() {
  return {.numerics = training_numerics_id_of<Arch, T>,
          .token_group = ropewalk::token_group<Arch, T>,
          .forward = make_kernel_table<Arch, T>(),
          .multiply_add_inputs = &gemm_add_inputs<Arch, T>,
          .add_weight_gradient = &ropewalk::add_weight_gradient<Arch, T>,
          .transpose_panel = &ropewalk::transpose_panel<Arch, T>,
          .round_panel = &ropewalk::round_panel<Arch>,
          .round_rows = &ropewalk::round_rows<Arch>,
          .rmsnorm_gradient = &ropewalk::rmsnorm_gradient<Arch>,
          .norm_weight_gradient = &ropewalk::norm_weight_gradient<Arch>,
          .swiglu = &ropewalk::swiglu<Arch, T>,
          .swiglu_gradient = &ropewalk::swiglu_gradient<Arch, T>,
          .transpose_panels = &ropewalk::transpose_panels<Arch, T>,
          .attend_backward = &ropewalk::attend_backward<Arch, T>,
          .head_nll_lse = &ropewalk::head_nll_lse<Arch, T>,
          .head_gradient = &ropewalk::head_gradient<Arch, T>,
          .adamw_update = &ropewalk::adamw_update<Arch>,
          .sum_of_squares = &ropewalk::sum_of_squares<Arch>};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
