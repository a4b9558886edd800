// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// One pass of AdamW over parameters, and the norm that gradients are clipped by.

#include "ropewalk/simd/floats.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Numbers of one AdamW step, the same for all elements of a parameter.
struct AdamWStep {
  float gradient_scale = 1;  ///< of clipping
  float beta1 = 0, beta2 = 0;
  float rest1 = 0, rest2 = 0;  ///< 1 - beta1, 1 - beta2, rounded from double
  float eps = 0;
  float step_size = 0;           ///< lr / (1 - beta1^t)
  float inverse_root_bias2 = 0;  ///< 1 / sqrt(1 - beta2^t)
  float keep = 1;                ///< 1 - lr * weight_decay
};

/// With g the scaled gradient:
///
///     m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
///     w = keep w - step_size m / (sqrt(v) inverse_root_bias2 + eps)
///
/// **Source:** arXiv:1711.05101, Algorithm 2; the order of operations is torch's.
template <class Arch>
void adamw_update(float* w, float* m, float* v, const float* gradient, index_t count,
                  const AdamWStep& step) noexcept {
  using V = simd::Floats<Arch>;
  const V scale(step.gradient_scale), beta1(step.beta1), beta2(step.beta2);
  const V rest1(step.rest1), rest2(step.rest2), eps(step.eps);
  const V minus_step(-step.step_size), root(step.inverse_root_bias2), keep(step.keep);
  for (index_t i = 0; i < count; i += simd::lanes) {
    const index_t left = count - i;
    const V g = V::load_part(gradient + i, left) * scale;
    const V first = fma(rest1, g, V::load_part(m + i, left) * beta1);
    const V second = fma(rest2 * g, g, V::load_part(v + i, left) * beta2);
    const V change = first / fma(sqrt(second), root, eps);
    first.store_part(m + i, left);
    second.store_part(v + i, left);
    fma(minus_step, change, V::load_part(w + i, left) * keep).store_part(w + i, left);
  }
}

/// Sum of the squares of up to some thousand numbers, by 16 lanes and the tree.
template <class Arch>
float sum_of_squares(const float* x, index_t count) noexcept {
  using V = simd::Floats<Arch>;
  V sum(0.0f);
  for (index_t i = 0; i < count; i += simd::lanes) {
    const V v = V::load_part(x + i, count - i);
    sum = fma(v, v, sum);
  }
  return tree_sum(sum);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
