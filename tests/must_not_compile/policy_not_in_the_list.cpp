// SPDX-License-Identifier: Apache-2.0
/// \file
/// A method of one's own is none of AnyFrequency; AnyFrequencyOf takes a list that names it.
// EXPECT: (could not convert|no viable conversion) .*'Own' to .*AnyFrequency

#include "ropewalk/rope/any_frequency.hpp"

struct Own : ropewalk::AdjustedBase {};

#ifdef MISUSE
ropewalk::AnyFrequency any() { return Own{}; }
#else
ropewalk::AnyFrequencyOf<ropewalk::MethodList<Own>> any() { return Own{}; }
#endif
