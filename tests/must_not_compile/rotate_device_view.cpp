// SPDX-License-Identifier: Apache-2.0
/// \file
/// A view of another memory space is another type: kernels of the host refuse it.
// EXPECT: (cannot convert|no known conversion) .*TensorView<float, 3, device>

#include "ropewalk/rope/rotate.hpp"

struct device {};  // a memory space that the host cannot read

#ifdef MISUSE
void turn(ropewalk::TensorView<float, 3, device> x, const ropewalk::RotaryRows& rows) {
#else
void turn(ropewalk::TensorView<float, 3> x, const ropewalk::RotaryRows& rows) {
#endif
  ropewalk::rotate(x, rows, ropewalk::PairLayout::half_split);
}
