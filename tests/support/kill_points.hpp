// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Kills a child process at every system call that it makes, one after the other: between two calls
/// a process changes nothing that outlives it, so these are all the states that kill -9 can leave.

#include <csignal>
#include <cstdint>
#include <vector>

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ropewalk {

/// Which system calls count, by their number and arguments.
using CallFilter = bool(std::uint64_t, const std::uint64_t*);
inline bool every_call(std::uint64_t, const std::uint64_t*) { return true; }

/// Runs `action` in a child that dies before the call number `calls` among its first thread's
/// system calls that `counts(number, arguments)`, or ends if it makes fewer. The numbers of those
/// that it made; `ended` tells whether it ended by itself with exit code 0. Empty where tracing is
/// not allowed.
struct TracedChild {
  std::vector<std::uint64_t> calls = {};
  bool ended = false;
};

template <class Action>
TracedChild run_killed_at(std::size_t calls, Action&& action, CallFilter* counts) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(2);
    ::raise(SIGSTOP);
    try {
      action();
    } catch (...) {
      ::_exit(3);
    }
    ::_exit(0);
  }
  TracedChild out;
  int status = 0;
  if (::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return out;
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  for (;;) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    if (::waitpid(child, &status, 0) != child) return out;
    if (!WIFSTOPPED(status)) break;
    struct __ptrace_syscall_info info {};
    if (::ptrace(static_cast<__ptrace_request>(PTRACE_GET_SYSCALL_INFO), child, sizeof info,
                 &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY || !counts(info.entry.nr, info.entry.args)) {
      continue;
    }
    if (out.calls.size() == calls) ::kill(child, SIGKILL);
    out.calls.push_back(info.entry.nr);
  }
  out.ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return out;
}

/// For n = 0, 1, ...: `prepare()`, then `action` killed at its call n of those that count, then
/// `check(ended)`; until it ends by itself. The calls of that last run, which are all; empty where
/// tracing is not allowed.
template <class Prepare, class Action, class Check>
std::vector<std::uint64_t> for_each_kill_point(Prepare&& prepare, Action&& action, Check&& check,
                                               CallFilter* counts = every_call) {
  for (std::size_t n = 0;; ++n) {
    prepare();
    const TracedChild child = run_killed_at(n, action, counts);
    if (child.calls.empty()) return {};
    check(child.ended);
    if (child.ended || child.calls.size() <= n) return child.calls;
  }
}

inline bool is_rename(std::uint64_t call) {
#ifdef SYS_rename  // newer architectures lack it
  if (call == SYS_rename) return true;
#endif
  return call == SYS_renameat || call == SYS_renameat2;
}

/// Whether the call changes which files there are, or empties one.
inline bool changes_files(std::uint64_t call, const std::uint64_t* arguments) {
  if (call == SYS_openat) return (arguments[2] & (O_CREAT | O_TRUNC)) != 0;
  for (const long one : {SYS_mkdirat, SYS_unlinkat, SYS_ftruncate}) {
    if (call == static_cast<std::uint64_t>(one)) return true;
  }
#ifdef SYS_mkdir  // newer architectures lack them
  if (call == SYS_mkdir || call == SYS_unlink) return true;
#endif
  return is_rename(call);
}

/// Whether the last `call` comes after the last `other`, and both are there.
inline bool last_comes_after(const std::vector<std::uint64_t>& calls, long call, long other) {
  std::size_t a = 0, b = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (calls[i] == static_cast<std::uint64_t>(call)) a = i + 1;
    if (calls[i] == static_cast<std::uint64_t>(other)) b = i + 1;
  }
  return a != 0 && b != 0 && a > b;
}

}  // namespace ropewalk
