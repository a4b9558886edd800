// SPDX-License-Identifier: Apache-2.0
/// \file
/// A project that uses kernels and checks them against the oracle, from two translation units.

#include <cstdio>

#include <ropewalk/core/thread_pool.hpp>

double distance_to_oracle();  // second_unit.cpp

int main() {
  if (const double distance = distance_to_oracle(); !(distance < 1e-6)) {
    std::printf("the rotation is %g away from the oracle's\n", distance);
    return 1;
  }
  ropewalk::ThreadPool pool(2);  // threads are linked
  return pool.executor().workers() == 2 ? 0 : 1;
}
