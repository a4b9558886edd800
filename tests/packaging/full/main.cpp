// SPDX-License-Identifier: Apache-2.0
/// \file
/// A project that uses everything: kernels, files and the oracle, from two translation units.

#include <cstdio>

#include <ropewalk/hub.hpp>
#include <ropewalk/ropewalk.hpp>

double distance_to_oracle();  // second_unit.cpp

int main() {
  if (const double distance = distance_to_oracle(); !(distance < 1e-6)) {
    std::printf("the rotation is %g away from the oracle's\n", distance);
    return 1;
  }
  try {
    ropewalk::load_checkpoint("no/such/model.bin");
  } catch (const ropewalk::Error& error) {
    return 0;
  }
  std::puts("a missing model was loaded");
  return 1;
}
