// SPDX-License-Identifier: Apache-2.0
/// \file
/// Two units that include every header link, and share one copy of what the headers define.

#include <cstdio>

#include "two_units.hpp"

int main() {
  const Addresses first = two_units_first();
  const Addresses second = two_units_second();
  if (first.variable != second.variable || first.function != second.function) {
    std::puts("the units have copies of their own");
    return 1;
  }
  return first.function(0) == second.function(0) ? 0 : 1;
}
