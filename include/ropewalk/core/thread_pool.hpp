// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A fixed set of threads behind the Executor interface.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/executor.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// `threads` workers, the calling thread being worker 0. One parallel region at a time; regions do
/// not nest. Not copyable: executors refer to it.
///
/// Between regions a worker looks for the next one for some 50 microseconds before it sleeps, and
/// so does the caller for the end of a region: waking a thread takes as long as a small region.
/// With more workers than processors all sleep at once, since one that looks keeps one that works
/// from running.
class ThreadPool {
 public:
  explicit ThreadPool(index_t threads) {
    require(threads >= 1 && threads <= 4096, "1 <= threads <= 4096");
    workers_ = threads;
    spins_ = threads <= static_cast<index_t>(std::thread::hardware_concurrency());
    threads_.reserve(static_cast<std::size_t>(threads - 1));
    try {
      for (index_t w = 1; w < threads; ++w) threads_.emplace_back([this, w] { serve(w); });
    } catch (...) {
      stop();
      fail({.kind = ErrorClass::resource,
            .field = "threads",
            .found = std::to_string(threads),
            .expected = "as many threads as the system grants"});
    }
  }
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  Executor executor() {
    return {this, workers_,
            [](void* self, WorkerTask task) { static_cast<ThreadPool*>(self)->run(task); }};
  }

 private:
  // A thread that goes to sleep counts itself before it looks a last time; whoever it waits for
  // changes the state before it looks for sleepers. Both in the single order of all sequentially
  // consistent operations (the default of std::atomic), so that one of them sees the other.

  void run(WorkerTask task) {
    if (workers_ == 1) return task(0, 1);
    task_ = task;
    running_ = workers_ - 1;
    announce_region();
    task(0, workers_);
    const auto done = [this] { return running_ == 0; };
    if (look_for(done)) return;
    std::unique_lock lock(mutex_);
    caller_sleeps_ = true;
    done_.wait(lock, done);
    caller_sleeps_ = false;
  }
  void serve(index_t worker) {
    std::uint64_t seen = 0;
    for (;;) {
      const auto started = [&] { return region_ != seen; };
      if (!look_for(started)) {
        std::unique_lock lock(mutex_);
        ++sleepers_;
        start_.wait(lock, started);
        --sleepers_;
      }
      ++seen;
      if (stopping_) return;
      const WorkerTask task = *task_;
      task(worker, workers_);
      if (--running_ == 0 && caller_sleeps_) {
        pass_through();
        done_.notify_one();
      }
    }
  }
  void announce_region() {
    ++region_;
    if (sleepers_ == 0) return;
    pass_through();
    start_.notify_all();
  }
  /// Until whoever looked too early has released the lock, and so waits. Who wakes them does not
  /// hold it: they would run into it.
  void pass_through() { const std::lock_guard lock(mutex_); }
  void stop() {
    stopping_ = true;
    announce_region();
    for (std::thread& t : threads_) t.join();
  }

  /// Whether what is looked for came to be within the time that looking is worth.
  template <class Condition>
  bool look_for(const Condition& condition) const {
    if (!spins_) return condition();
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    do {
      for (int i = 0; i < 64; ++i) {
        if (condition()) return true;
        pause();
      }
      std::this_thread::yield();  // to whatever else is to run here
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }
  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  index_t workers_ = 1;
  bool spins_ = false;
  std::vector<std::thread> threads_;
  std::optional<WorkerTask> task_;  // written before region_, read after it
  // Apart from each other: workers look at one while others change the next.
  alignas(64) std::atomic<std::uint64_t> region_ = 0;
  std::atomic<bool> stopping_ = false;
  alignas(64) std::atomic<index_t> running_ = 0;
  alignas(64) std::atomic<index_t> sleepers_ = 0;
  std::atomic<bool> caller_sleeps_ = false;
  std::mutex mutex_;
  std::condition_variable start_, done_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
