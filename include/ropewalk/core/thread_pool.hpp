// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A fixed set of threads behind the Executor interface.

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
class ThreadPool {
 public:
  explicit ThreadPool(index_t threads) {
    require(threads >= 1 && threads <= 4096, "1 <= threads <= 4096");
    workers_ = threads;
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
  void run(WorkerTask task) {
    {
      const std::lock_guard lock(mutex_);
      task_ = task;
      running_ = workers_ - 1;
      ++region_;
    }
    start_.notify_all();
    task(0, workers_);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }
  void serve(index_t worker) {
    std::uint64_t seen = 0;
    for (;;) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || region_ != seen; });
      if (stopping_) return;
      seen = region_;
      const WorkerTask task = *task_;
      lock.unlock();
      task(worker, workers_);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    start_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  index_t workers_ = 1;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::optional<WorkerTask> task_;
  std::uint64_t region_ = 0;
  index_t running_ = 0;
  bool stopping_ = false;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
