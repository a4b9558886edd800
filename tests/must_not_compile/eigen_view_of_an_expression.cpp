// SPDX-License-Identifier: Apache-2.0
/// \file
/// The sum of two matrices has no elements in memory until it is given a name.
// EXPECT: satisf[a-z]+( of)? .EigenInMemory

#include "ropewalk/adapt/eigen.hpp"

float first(const Eigen::MatrixXf& a, const Eigen::MatrixXf& b) {
#ifdef MISUSE
  return ropewalk::view(a + b)(0, 0);
#else
  const Eigen::MatrixXf c = a + b;
  return ropewalk::view(c)(0, 0);
#endif
}
