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

/// Kernels of one instruction set. What each does is said where it is defined.
struct TrainingKernels {
  KernelTable<float> forward = {};
  decltype(&ropewalk::rmsnorm_gradient<simd::portable>) rmsnorm_gradient = nullptr;
  decltype(&ropewalk::norm_weight_gradient<simd::portable>) norm_weight_gradient = nullptr;
  decltype(&ropewalk::swiglu<simd::portable, float>) swiglu = nullptr;
  decltype(&ropewalk::swiglu_gradient<simd::portable, float>) swiglu_gradient = nullptr;
  decltype(&ropewalk::add_weight_gradient<simd::portable>) add_weight_gradient = nullptr;
  decltype(&ropewalk::gemm_add_inputs<simd::portable>) gemm_add_inputs = nullptr;
  decltype(&ropewalk::transpose_panel<simd::portable>) transpose_panel = nullptr;
  decltype(&ropewalk::transpose_panels<simd::portable>) transpose_panels = nullptr;
  decltype(&ropewalk::attend_backward<simd::portable, float>) attend_backward = nullptr;
  decltype(&ropewalk::head_nll_lse<simd::portable, float>) head_nll_lse = nullptr;
  decltype(&ropewalk::head_gradient<simd::portable, float>) head_gradient = nullptr;
  decltype(&ropewalk::adamw_update<simd::portable>) adamw_update = nullptr;
  decltype(&ropewalk::sum_of_squares<simd::portable>) sum_of_squares = nullptr;
};

/// The table of instruction set Arch.
template <simd::FusedInstructionSet Arch>
TrainingKernels make_training_kernels() {
  return {.forward = make_kernel_table<Arch>(),
          .rmsnorm_gradient = &ropewalk::rmsnorm_gradient<Arch>,
          .norm_weight_gradient = &ropewalk::norm_weight_gradient<Arch>,
          .swiglu = &ropewalk::swiglu<Arch, float>,
          .swiglu_gradient = &ropewalk::swiglu_gradient<Arch, float>,
          .add_weight_gradient = &ropewalk::add_weight_gradient<Arch>,
          .gemm_add_inputs = &ropewalk::gemm_add_inputs<Arch>,
          .transpose_panel = &ropewalk::transpose_panel<Arch>,
          .transpose_panels = &ropewalk::transpose_panels<Arch>,
          .attend_backward = &ropewalk::attend_backward<Arch, float>,
          .head_nll_lse = &ropewalk::head_nll_lse<Arch, float>,
          .head_gradient = &ropewalk::head_gradient<Arch, float>,
          .adamw_update = &ropewalk::adamw_update<Arch>,
          .sum_of_squares = &ropewalk::sum_of_squares<Arch>};
}

}  // namespace ropewalk::inline ROPEWALK_ABI
