// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>

#include <ropewalk/adapt/eigen.hpp>
#include <ropewalk/rope/adjusted_base.hpp>
#include <ropewalk/rope/rotate.hpp>

/// Rotates the rows of a matrix of the user's in place; lengths of rows stay.
bool rotates_a_matrix() {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> q(3, 64);
  q.setConstant(0.5f);
  const auto plan = ropewalk::make_frequency_plan(ropewalk::AdjustedBase{.rope_theta = 10000},
                                                  {.rotary_dim = 32});
  const std::int64_t positions[] = {0, 7, 1000};
  ropewalk::rotate(ropewalk::heads_view(q, 2), ropewalk::make_rotary_rows(plan, positions),
                   ropewalk::PairLayout::half_split);
  return std::abs(q.row(2).norm() - 4.0f) < 1e-5f && q(0, 5) == 0.5f && q(1, 0) != 0.5f;
}
