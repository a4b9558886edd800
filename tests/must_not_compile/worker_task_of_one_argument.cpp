// SPDX-License-Identifier: Apache-2.0
/// \file
/// A parallel region tells each worker its number and how many there are.
// EXPECT: (cannot convert|no viable conversion) .*lambda.* to .*WorkerTask

#include "ropewalk/core/executor.hpp"

void everywhere(const ropewalk::Executor& executor) {
#ifdef MISUSE
  executor.run([](ropewalk::index_t) {});
#else
  executor.run([](ropewalk::index_t, ropewalk::index_t) {});
#endif
}
