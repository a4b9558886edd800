// SPDX-License-Identifier: Apache-2.0
/// \file
/// The channels of a head must be adjacent: a column-major matrix is not cut into heads.
// EXPECT: satisf[a-z]+( of)? .EigenAdjacentColumns

#include "ropewalk/adapt/eigen.hpp"

#ifdef MISUSE
using Rows = Eigen::MatrixXf;
#else
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
#endif

float first(Rows& q) { return ropewalk::heads_view(q, 8)(0, 0, 0); }
