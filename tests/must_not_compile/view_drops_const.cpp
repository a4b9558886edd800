// SPDX-License-Identifier: Apache-2.0
/// \file
/// A view of const elements does not become one that can be written.
// EXPECT: (could not convert|no viable conversion) .*TensorView<const float

#include "ropewalk/core/tensor_view.hpp"

#ifdef MISUSE
ropewalk::TensorView<float, 2> writable(ropewalk::TensorView<const float, 2> x) { return x; }
#else
ropewalk::TensorView<float, 2> writable(ropewalk::TensorView<float, 2> x) { return x; }
#endif
