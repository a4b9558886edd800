// SPDX-License-Identifier: Apache-2.0
/// \file
/// The pair layout is named, not a flag.
// EXPECT: (cannot convert|no known conversion) .*'bool'.* to .*PairLayout'

#include "ropewalk/rope/rotate.hpp"

void turn(ropewalk::HeadsView<float> x, const ropewalk::RotaryRows& rows) {
#ifdef MISUSE
  ropewalk::rotate(x, rows, true);
#else
  ropewalk::rotate(x, rows, ropewalk::PairLayout::interleaved);
#endif
}
