// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

namespace cli {

/// From now on SIGINT, SIGTERM and SIGHUP are noted for check_stop(), and SIGXFSZ is ignored.
void install_stop_signals();

/// What check_stop() throws.
struct Stopped {
  int exit_code = 0;  ///< 130 or 143
};

/// \throws Stopped when a signal has arrived.
void check_stop();

}  // namespace cli
