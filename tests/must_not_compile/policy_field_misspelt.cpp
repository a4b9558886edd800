// SPDX-License-Identifier: Apache-2.0
/// \file
/// Fields are named: a name that does not exist is no silent default.
// EXPECT: no non-static data member named 'factr'|designator 'factr' does not refer

#include "ropewalk/rope/yarn.hpp"

#ifdef MISUSE
ropewalk::Yarn yarn() { return ropewalk::Yarn{.factr = 4}; }
#else
ropewalk::Yarn yarn() { return ropewalk::Yarn{.factor = 4}; }
#endif
