// SPDX-License-Identifier: Apache-2.0
/// \file
/// A matrix (tokens, channels) does not say where heads begin: rank 3 is asked for.
// EXPECT: (cannot convert|no known conversion) .*TensorView<float, 2

#include "ropewalk/rope/rotate.hpp"

#ifdef MISUSE
void turn(ropewalk::TensorView<float, 2> x, const ropewalk::RotaryRows& rows) {
#else
void turn(ropewalk::TensorView<float, 3> x, const ropewalk::RotaryRows& rows) {
#endif
  ropewalk::rotate(x, rows, ropewalk::PairLayout::half_split);
}
