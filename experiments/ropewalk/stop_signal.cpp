// SPDX-License-Identifier: Apache-2.0
#include "stop_signal.hpp"

#include <atomic>
#include <csignal>
#include <ctime>

#include <unistd.h>

namespace cli {

namespace {

std::atomic<int> stop_code{0};
std::atomic<long> stop_second{0};                      // of a steady clock
static_assert(std::atomic<int>::is_always_lock_free);  // written by a signal handler
static_assert(std::atomic<long>::is_always_lock_free);

/// The second signal ends the process at once, unless it is the first one's echo: `timeout` and
/// others signal a process and then its group.
extern "C" void note_stop(int signal) {
  const int code = signal == SIGINT ? 130 : 143;
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  if (stop_code.exchange(code) == 0) {
    stop_second.store(now.tv_sec);
  } else if (now.tv_sec > stop_second.load() + 1) {
    ::_exit(code);
  }
}

}  // namespace

void install_stop_signals() {
  struct sigaction action {};
  action.sa_handler = note_stop;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  // A file beyond the limit of its size (ulimit -f) then shows as a failed write.
  std::signal(SIGXFSZ, SIG_IGN);
}

void check_stop() {
  if (const int code = stop_code.load()) throw Stopped{code};
}

}  // namespace cli
