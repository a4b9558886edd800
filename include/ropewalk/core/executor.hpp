// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// How kernels are spread over threads: a function reference and two static splits.

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
/// The split of work among workers is static and chosen by the kernel; every output element has one
/// owner and a summation order of its own, so results do not depend on the number of workers.
class Executor {
 public:
  using Run = void (*)(void* pool, WorkerTask task);
  Executor() = default;
  Executor(void* pool, index_t workers, Run run_on_pool)
      : pool_(pool), workers_(workers), run_(run_on_pool) {}
  index_t workers() const { return workers_; }
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
};

/// f(task, worker) for every task in [0, tasks), dealt out like cards: worker w gets tasks w,
/// w + workers, ... For tasks of uneven cost that are sorted by cost.
template <class F>
void for_each_dealt(const Executor& executor, index_t tasks, F&& f) {
  executor.run([&](index_t worker, index_t workers) {
    for (index_t t = worker; t < tasks; t += workers) f(t, worker);
  });
}

/// f(task, worker) for every task in [0, tasks), each worker a contiguous run of them. For tasks of
/// even cost whose neighbours share data.
template <class F>
void for_each_in_runs(const Executor& executor, index_t tasks, F&& f) {
  executor.run([&](index_t worker, index_t workers) {
    const index_t end = tasks * (worker + 1) / workers;
    for (index_t t = tasks * worker / workers; t < end; ++t) f(t, worker);
  });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
