// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The kernel tables compiled into this executable, and the choice among them.

#include <string>
#include <vector>

#include "ropewalk/model/kernel_table.hpp"

namespace cli {

using namespace ropewalk;

/// Tables that this machine can run, best first.
std::vector<KernelTable<float>> available_kernels();

/// The table of that name; the best for "auto". \throws Error(unsupported) naming what there is.
KernelTable<float> choose_kernels(const std::string& isa);

/// \throws Error(unsupported) when the executable was compiled for a machine with more instructions
/// than this one: without the check it would be killed by SIGILL.
void check_machine();

}  // namespace cli
