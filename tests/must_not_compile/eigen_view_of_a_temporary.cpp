// SPDX-License-Identifier: Apache-2.0
/// \file
/// A view of a temporary matrix would outlive it.
// EXPECT: satisf[a-z]+( of)? .EigenOutlivesView

#include "ropewalk/adapt/eigen.hpp"

Eigen::MatrixXf projected();

float first() {
#ifdef MISUSE
  return ropewalk::view(projected())(0, 0);
#else
  const Eigen::MatrixXf q = projected();
  return ropewalk::view(q)(0, 0);
#endif
}
