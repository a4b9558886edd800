// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// load_checkpoint() compiled once, for tests that want a model and not its loader.

#include <string>

#include "ropewalk/hub/checkpoint_data.hpp"

namespace ropewalk {

/// As load_checkpoint(path).
Checkpoint load_test_checkpoint(const std::string& path);

}  // namespace ropewalk
