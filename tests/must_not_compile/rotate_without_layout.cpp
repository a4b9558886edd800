// SPDX-License-Identifier: Apache-2.0
/// \file
/// The pair layout has no default: the wrong one would give silently wrong logits.
// EXPECT: candidate expects 5 arguments, 2 provided|requires at least 3 arguments, but 2

#include "ropewalk/rope/rotate.hpp"

void turn(ropewalk::HeadsView<float> x, const ropewalk::RotaryRows& rows) {
#ifdef MISUSE
  ropewalk::rotate(x, rows);
#else
  ropewalk::rotate(x, rows, ropewalk::PairLayout::interleaved);
#endif
}
