// SPDX-License-Identifier: Apache-2.0
/// \file
/// The output of attention is written.
// EXPECT: (cannot convert|no known conversion) .*TensorView<const float, 3

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/masks.hpp"

#ifdef MISUSE
void attend(ropewalk::HeadsView<const float> x, ropewalk::TensorView<const float, 3> out) {
#else
void attend(ropewalk::HeadsView<const float> x, ropewalk::TensorView<float, 3> out) {
#endif
  ropewalk::attention(x, x, x, ropewalk::Causal{}, out);
}
