// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// How kernels are spread over threads: a function reference and two ways to split tasks.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

template <class Signature>
class FunctionRef;

/// Non-owning reference to a callable that outlives the call it is passed to.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> &&
           std::is_invocable_r_v<R, F&, Args...>)
      FunctionRef(F&& f)  // NOLINT(google-explicit-constructor): it is a reference
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

/// What one worker of a parallel region does: worker in [0, workers). Must not throw.
using WorkerTask = FunctionRef<void(index_t worker, index_t workers)>;

/// Handle to something that runs a WorkerTask once on each of its workers and returns when all are
/// done. Default: the calling thread alone. Copyable; does not own the pool behind it.
///
/// Kernels cut their work into tasks. Every output element belongs to one task and has a summation
/// order of its own, so results depend neither on the number of workers nor on who does what.
class Executor {
 public:
  using Run = void (*)(void* pool, WorkerTask task);
  Executor() = default;
  /// \param concurrent whether workers run side by side, so that one may take over another's tasks
  Executor(void* pool, index_t workers, Run run_on_pool, bool concurrent = true)
      : pool_(pool), workers_(workers), run_(run_on_pool), concurrent_(concurrent) {}
  index_t workers() const { return workers_; }
  bool concurrent() const { return concurrent_; }
  void run(WorkerTask task) const {
    if (run_ == nullptr) {
      task(0, 1);
    } else {
      run_(pool_, task);
    }
  }

 private:
  void* pool_ = nullptr;
  index_t workers_ = 1;
  Run run_ = nullptr;
  bool concurrent_ = false;
};

namespace detail {

/// Runs of tasks, one for each worker; of more than 64 workers some share one. Workers take tasks
/// from the front of their run, and when it is empty from the back of others'. Fewer than 2^32
/// tasks.
class TaskRuns {
 public:
  TaskRuns(index_t tasks, index_t workers) : count_(std::min(workers, most)) {
    for (index_t r = 0; r < count_; ++r) {
      const auto begin = static_cast<std::uint64_t>(tasks * r / count_);
      const auto end = static_cast<std::uint64_t>(tasks * (r + 1) / count_);
      runs_[r].left = begin * one_from_front + end;
    }
  }
  /// A task that nobody has taken, or -1 when all are taken.
  index_t take(index_t worker) {
    for (index_t i = 0; i < count_; ++i) {
      std::atomic<std::uint64_t>& left = runs_[(worker + i) % count_].left;
      std::uint64_t seen = left.load(std::memory_order_relaxed);
      for (;;) {
        const std::uint64_t begin = seen / one_from_front, end = seen % one_from_front;
        if (begin >= end) break;
        const bool own = i == 0;
        if (left.compare_exchange_weak(seen, own ? seen + one_from_front : seen - 1,
                                       std::memory_order_relaxed)) {
          return static_cast<index_t>(own ? begin : end - 1);
        }
      }
    }
    return -1;
  }

 private:
  static constexpr index_t most = 64;
  static constexpr std::uint64_t one_from_front = std::uint64_t{1} << 32;
  struct alignas(64) Run {  // apart from each other: workers change them at the same time
    std::atomic<std::uint64_t> left = 0;  ///< begin * 2^32 + end
  };
  Run runs_[most];
  index_t count_;
};

}  // namespace detail

/// f(task, worker) for every task in [0, tasks), dealt out one by one: the next to whoever is free
/// first. For tasks of uneven cost that are sorted by cost. Of workers that do not run side by
/// side, worker w gets tasks w, w + workers, ...
template <class F>
void for_each_dealt(const Executor& executor, index_t tasks, F&& f) {
  if (!executor.concurrent()) {
    executor.run([&](index_t worker, index_t workers) {
      for (index_t t = worker; t < tasks; t += workers) f(t, worker);
    });
    return;
  }
  std::atomic<index_t> next = 0;
  executor.run([&](index_t worker, index_t) {
    for (index_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) f(t, worker);
  });
}

/// f(task, worker) for every task in [0, tasks), each worker a contiguous run of them, and what is
/// left of others' when its own is done. For tasks of even cost whose neighbours share data.
template <class F>
void for_each_in_runs(const Executor& executor, index_t tasks, F&& f) {
  if (tasks >> 32 != 0) return for_each_dealt(executor, tasks, f);
  if (!executor.concurrent()) {
    executor.run([&](index_t worker, index_t workers) {
      const index_t end = tasks * (worker + 1) / workers;
      for (index_t t = tasks * worker / workers; t < end; ++t) f(t, worker);
    });
    return;
  }
  detail::TaskRuns runs(tasks, executor.workers());
  executor.run([&](index_t worker, index_t) {
    for (index_t t; (t = runs.take(worker)) >= 0;) f(t, worker);
  });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
