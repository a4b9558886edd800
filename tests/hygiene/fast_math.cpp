// SPDX-License-Identifier: Apache-2.0
/// \file
/// Must compile, and must not with -ffast-math: see CMakeLists.txt.

#include "ropewalk/core/config.hpp"

int main() { return ropewalk::version_major < 0 ? 1 : 0; }
