// SPDX-License-Identifier: Apache-2.0
/// \file
/// An element takes as many indices as the view has dimensions.
// EXPECT: sizeof ?\.\.\. ?\(I.*\) == (Rank|3).* evaluated to '?false

#include "ropewalk/core/tensor_view.hpp"

#ifdef MISUSE
float first(ropewalk::HeadsView<float> x) { return x(0, 0); }
#else
float first(ropewalk::HeadsView<float> x) { return x(0, 0, 0); }
#endif
