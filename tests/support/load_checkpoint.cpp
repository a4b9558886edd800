// SPDX-License-Identifier: Apache-2.0
#include "support/load_checkpoint.hpp"

#include "ropewalk/hub/checkpoint.hpp"

namespace ropewalk {

Checkpoint load_test_checkpoint(const std::string& path) { return load_checkpoint(path); }

}  // namespace ropewalk
