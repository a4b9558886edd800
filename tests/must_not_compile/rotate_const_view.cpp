// SPDX-License-Identifier: Apache-2.0
/// \file
/// Rotation is in place: a view of const floats is refused.
// EXPECT: (cannot convert|no known conversion) .*TensorView<const float, 3

#include "ropewalk/rope/rotate.hpp"

#ifdef MISUSE
void turn(ropewalk::TensorView<const float, 3> x, const ropewalk::RotaryRows& rows) {
#else
void turn(ropewalk::TensorView<float, 3> x, const ropewalk::RotaryRows& rows) {
#endif
  ropewalk::rotate(x, rows, ropewalk::PairLayout::half_split);
}
