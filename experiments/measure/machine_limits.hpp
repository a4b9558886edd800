// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What this machine can do at this moment: multiply-adds from registers, bytes from memory.

#include <algorithm>
#include <chrono>
#include <type_traits>

#include <time.h>

#include "ropewalk/core/executor.hpp"
#include "ropewalk/linalg/gemm.hpp"
#include "ropewalk/simd/floats.hpp"

namespace measure {

using namespace ropewalk;

/// What time is measured in. Work of one thread is timed by the processor time of that thread, so
/// that other programs on the machine disturb less; work of several by the clock on the wall.
enum class TimeBase { thread, wall };

inline TimeBase time_base_of(const Executor& executor) {
  return executor.workers() == 1 ? TimeBase::thread : TimeBase::wall;
}

/// Seconds since some moment.
inline double seconds_now(TimeBase base) {
  if (base == TimeBase::wall) {
    using Clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
  }
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

namespace detail {

/// Vectors of independent multiply-adds: enough to hide their latency, few enough to stay in
/// registers (those of the matrix product's tile; for scalars, 16 of them).
template <class Arch>
inline constexpr std::size_t fma_chains =
    std::is_same_v<Arch, simd::portable> ? 1 : GemmTile<Arch>::rows* GemmTile<Arch>::vectors;

/// `rounds` multiply-adds in each chain, from registers alone.
template <class Arch>
[[gnu::noinline]] void spin_fma(index_t rounds) {
  using V = simd::Floats<Arch>;
  constexpr std::size_t chains = fma_chains<Arch>;
  volatile float factor = 0.999f, addend = 1e-3f;  // unknown to the compiler; the sums tend to 1
  const V a(factor), b(addend);
  V x[chains];
  simd::unroll<chains>([&](auto i)
                           __attribute__((always_inline)) { x[i] = V(static_cast<float>(i())); });
  for (index_t k = 0; k < rounds; ++k) {
    simd::unroll<chains>([&](auto i) __attribute__((always_inline)) { x[i] = fma(a, x[i], b); });
  }
  [[maybe_unused]] volatile float sink = 0;
  simd::unroll<chains>([&](auto i) __attribute__((always_inline)) { sink = max_lane(x[i]); });
}

}  // namespace detail

/// Multiply-adds per second from registers alone, all workers at once, in GFLOP/s (2 a
/// multiply-add): the best of 5 runs of about 3 ms.
template <class Arch>
double fma_gflops(const Executor& executor, TimeBase base) {
  const auto timed = [&](index_t rounds) {
    const double start = seconds_now(base);
    executor.run([rounds](index_t, index_t) { detail::spin_fma<Arch>(rounds); });
    return seconds_now(base) - start;
  };
  index_t rounds = 1 << 12;
  double seconds = timed(rounds);
  while (seconds < 3e-3 && rounds < (index_t{1} << 40)) {
    rounds *= 2;
    seconds = timed(rounds);
  }
  for (int i = 0; i < 4; ++i) seconds = std::min(seconds, timed(rounds));
  const double flops = 2.0 * simd::lanes * static_cast<double>(detail::fma_chains<Arch>) *
                       static_cast<double>(rounds) * static_cast<double>(executor.workers());
  return flops / seconds * 1e-9;
}
template <class Arch>
double fma_gflops(const Executor& executor = {}) {
  return fma_gflops<Arch>(executor, time_base_of(executor));
}

/// How a loop streams through memory. Bytes count once when read and once when written.
enum class Traffic {
  read,    ///< every float is added up
  write,   ///< every float is set
  update,  ///< every float is read, scaled and written back
  copy,    ///< half of the memory is read and written to the other half
};

namespace detail {

/// One pass over x (size floats, a multiple of 128).
template <class Arch>
[[gnu::noinline]] void stream_once(Traffic traffic, float* x, index_t size) {
  using V = simd::Floats<Arch>;
  constexpr std::size_t step = 8;
  constexpr auto stride = static_cast<index_t>(step) * simd::lanes;
  const auto at = [](auto i) { return static_cast<index_t>(i()) * simd::lanes; };
  const V one(1.0f);
  switch (traffic) {
    case Traffic::read: {
      V sum[step];
      simd::unroll<step>([&](auto i) __attribute__((always_inline)) { sum[i] = V(0.0f); });
      for (index_t k = 0; k < size; k += stride) {
        simd::unroll<step>([&](auto i) __attribute__((always_inline)) {
          sum[i] = sum[i] + V::load(x + k + at(i));
        });
      }
      [[maybe_unused]] volatile float sink = 0;
      simd::unroll<step>([&](auto i) __attribute__((always_inline)) { sink = max_lane(sum[i]); });
      break;
    }
    case Traffic::write:
      for (index_t k = 0; k < size; k += stride) {
        simd::unroll<step>([&](auto i)
                               __attribute__((always_inline)) { one.store(x + k + at(i)); });
      }
      break;
    case Traffic::update: {
      volatile float factor = 1;
      const V a(factor);
      for (index_t k = 0; k < size; k += stride) {
        simd::unroll<step>([&](auto i) __attribute__((always_inline)) {
          (V::load(x + k + at(i)) * a).store(x + k + at(i));
        });
      }
      break;
    }
    case Traffic::copy: {
      float* to = x + size / 2;
      for (index_t k = 0; k < size / 2; k += stride) {
        simd::unroll<step>([&](auto i) __attribute__((always_inline)) {
          V::load(x + k + at(i)).store(to + k + at(i));
        });
      }
      break;
    }
  }
}

}  // namespace detail

/// Gigabytes per second that all workers together stream through a working set of `bytes` in all
/// (at most 256 MiB are used: that is beyond every cache), the best of several passes. Ordinary
/// stores, as kernels use them: lines are read before they are written, which is not counted.
template <class Arch>
double memory_gbps(Traffic traffic, double bytes, const Executor& executor = {}) {
  constexpr index_t granule = 256;  // two runs of 8 vectors
  const double most = 256.0 * (1 << 20);
  const double each = std::min(bytes, most) / static_cast<double>(executor.workers()) / 4;
  const index_t size = std::max(static_cast<index_t>(each) / granule, index_t{1}) * granule;
  Buffer<float> memory(size * executor.workers());
  const TimeBase base = time_base_of(executor);
  const auto timed = [&](index_t passes) {
    const double start = seconds_now(base);
    executor.run([&](index_t worker, index_t) {
      for (index_t i = 0; i < passes; ++i) {
        detail::stream_once<Arch>(traffic, memory.data() + worker * size, size);
      }
    });
    return seconds_now(base) - start;
  };
  index_t passes = 1;
  timed(passes);  // brings the pages in
  double seconds = timed(passes);
  while (seconds < 2e-3) {
    passes *= 2;
    seconds = timed(passes);
  }
  for (int i = 0; i < 4; ++i) seconds = std::min(seconds, timed(passes));
  const double touched = traffic == Traffic::update ? 2.0 : 1.0;
  return touched * 4e-9 * static_cast<double>(memory.size()) * static_cast<double>(passes) /
         seconds;
}

}  // namespace measure
