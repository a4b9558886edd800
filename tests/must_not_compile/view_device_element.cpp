// SPDX-License-Identifier: Apache-2.0
/// \file
/// Elements of another memory space cannot be read on the host.
// EXPECT: is_same_v<(Space|device), ropewalk.*host>.* evaluated to '?false

#include "ropewalk/core/tensor_view.hpp"

struct device {};  // a memory space that the host cannot read

#ifdef MISUSE
using Space = device;
#else
using Space = ropewalk::host;
#endif

float first(ropewalk::TensorView<float, 2, Space> x) { return x(0, 0); }
