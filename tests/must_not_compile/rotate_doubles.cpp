// SPDX-License-Identifier: Apache-2.0
/// \file
/// Kernels work on floats: a view of doubles is not converted behind one's back.
// EXPECT: (cannot convert|no known conversion) .*TensorView<double, 3

#include "ropewalk/rope/rotate.hpp"

#ifdef MISUSE
void turn(ropewalk::TensorView<double, 3> x, const ropewalk::RotaryRows& rows) {
#else
void turn(ropewalk::TensorView<float, 3> x, const ropewalk::RotaryRows& rows) {
#endif
  ropewalk::rotate(x, rows, ropewalk::PairLayout::half_split);
}
