// SPDX-License-Identifier: Apache-2.0
/// \file
/// Doubles are the oracle's: attention does not take a view of them beside floats.
// EXPECT: (cannot convert|no known conversion) .*TensorView<double, 3

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/masks.hpp"

#ifdef MISUSE
void attend(ropewalk::HeadsView<float> x, ropewalk::TensorView<double, 3> v,
            ropewalk::HeadsView<float> out) {
#else
void attend(ropewalk::HeadsView<float> x, ropewalk::TensorView<float, 3> v,
            ropewalk::HeadsView<float> out) {
#endif
  ropewalk::attention(x, x, v, ropewalk::Causal{}, out);
}
