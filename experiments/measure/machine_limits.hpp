// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What this machine can do at this moment: multiply-adds from registers, bytes from memory.

#include <algorithm>
#include <chrono>
#include <iterator>
#include <numeric>
#include <type_traits>

#include <time.h>

#include "ropewalk/core/executor.hpp"
#include "ropewalk/linalg/gemm.hpp"
#include "ropewalk/simd/pairs.hpp"

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
  constexpr std::size_t chains = fma_chains<Arch>, lanes = simd::lanes;
  volatile float factor = 0.999f, addend = 1e-3f;  // unknown to the compiler; the sums tend to 1
  const V a(factor), b(addend);
  float start[chains * simd::lanes];  // all different: equal registers would be computed once
  std::iota(std::begin(start), std::end(start), static_cast<float>(factor));
  V x[chains];
  simd::unroll<chains>([&](auto i)
                           __attribute__((always_inline)) { x[i] = V::load(start + i() * lanes); });
  for (index_t k = 0; k < rounds; ++k) {
    simd::unroll<chains>([&](auto i) __attribute__((always_inline)) { x[i] = fma(a, x[i], b); });
  }
  [[maybe_unused]] volatile float sink = 0;
  simd::unroll<chains>([&](auto i) __attribute__((always_inline)) { sink = max_lane(x[i]); });
}

/// `rounds` dot products of bf16 pairs in each chain, from registers alone, where Arch has them.
template <class Arch>
[[gnu::noinline]] void spin_pairs(index_t rounds) {
  using V = simd::Floats<Arch>;
  constexpr std::size_t chains = fma_chains<Arch>;
  volatile std::uint16_t small = to_bf16(1e-3f).bits;  // unknown to the compiler
  const bf16 pair[2] = {{small}, {small}};
  const auto a = simd::Pairs<Arch>::broadcast(pair), b = a;
  V x[chains];
  simd::unroll<chains>([&](auto i)
                           __attribute__((always_inline)) { x[i] = V(static_cast<float>(i())); });
  for (index_t k = 0; k < rounds; ++k) {
    simd::unroll<chains>([&](auto i) __attribute__((always_inline)) { x[i] = fma(a, b, x[i]); });
  }
  [[maybe_unused]] volatile float sink = 0;
  simd::unroll<chains>([&](auto i) __attribute__((always_inline)) { sink = max_lane(x[i]); });
}

/// `rounds` products of matrix tiles for each of four sums, from registers alone.
template <class Arch>
[[gnu::noinline]] void spin_tiles(index_t rounds) {
  simd::MatrixTiles<Arch> tiles;
  tiles.multiply_registers(rounds);
}

}  // namespace detail

/// A loop of multiply-adds from registers alone and what a round of it computes, as plain data: a
/// program that chooses its instructions at run time measures their limit with the same ones.
struct FmaProbe {
  void (*spin)(index_t rounds) = nullptr;
  double flops_per_round = 0;  ///< 2 a multiply-add
};

/// Of what products multiply whose operands are stored as T: for bf16 matrix tiles or the dot
/// product of pairs where Arch has them, else the float multiply-adds that operands are widened
/// for.
template <class Arch, class T = float>
FmaProbe fma_probe() {
  constexpr double flops = 2.0 * simd::lanes * static_cast<double>(detail::fma_chains<Arch>);
  if constexpr (simd::takes_matrix_tiles<Arch, T>) {
    constexpr auto multiply_adds = simd::tile_block * simd::tile_block * simd::tile_depth;
    return {.spin = &detail::spin_tiles<Arch>, .flops_per_round = 2.0 * multiply_adds};
  } else if constexpr (std::is_same_v<simd::Multiplied<Arch, T>, bf16>) {
    return {.spin = &detail::spin_pairs<Arch>, .flops_per_round = 2 * flops};
  } else {
    return {.spin = &detail::spin_fma<Arch>, .flops_per_round = flops};
  }
}

/// GFLOP/s (2 a multiply-add) of one run of `rounds` on all workers at once.
inline double fma_gflops_of(const FmaProbe& probe, index_t rounds, const Executor& executor,
                            TimeBase base) {
  const double start = seconds_now(base);
  executor.run([&probe, rounds](index_t, index_t) { probe.spin(rounds); });
  const double seconds = seconds_now(base) - start;
  return probe.flops_per_round * static_cast<double>(rounds) *
         static_cast<double>(executor.workers()) / seconds * 1e-9;
}

/// Rounds that take about `seconds`.
inline index_t fma_rounds(const FmaProbe& probe, double seconds) {
  index_t rounds = 1 << 12;
  for (; rounds < (index_t{1} << 40); rounds *= 2) {
    const double start = seconds_now(TimeBase::thread);
    probe.spin(rounds);
    if (seconds_now(TimeBase::thread) - start >= seconds) break;
  }
  return rounds;
}

/// Multiply-adds per second from registers alone, all workers at once: the best of 5 runs of about
/// 3 ms.
inline double fma_gflops(const FmaProbe& probe, const Executor& executor, TimeBase base) {
  const index_t rounds = fma_rounds(probe, 3e-3);
  double best = 0;
  for (int i = 0; i < 5; ++i) best = std::max(best, fma_gflops_of(probe, rounds, executor, base));
  return best;
}
template <class Arch, class T = float>
double fma_gflops(const Executor& executor, TimeBase base) {
  return fma_gflops(fma_probe<Arch, T>(), executor, base);
}
template <class Arch, class T = float>
double fma_gflops(const Executor& executor = {}) {
  return fma_gflops<Arch, T>(executor, time_base_of(executor));
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

/// Measures again and again how fast all workers together stream through a working set of `bytes`
/// in all. Ordinary stores, as kernels use them: lines are read before they are written, which is
/// not counted.
template <class Arch>
class MemoryProbe {
 public:
  MemoryProbe(Traffic traffic, double bytes, const Executor& executor = {})
      : traffic_(traffic), executor_(executor), base_(time_base_of(executor)) {
    const auto share_of = [&](double size) {
      const double floats = size / 4 / static_cast<double>(executor.workers());
      return std::max(static_cast<index_t>(floats) / granule, index_t{1}) * granule;
    };
    part_ = share_of(std::min(bytes, largest_cached));
    each_ = bytes <= largest_cached ? part_ : share_of(beyond_caches) / part_ * part_;
    memory_ = Buffer<float>(each_ * executor.workers());
    while (timed(passes_) < 0.5e-3) passes_ *= 2;
  }
  /// Gigabytes per second, measured in half a millisecond or one pass. What fits caches is brought
  /// there first; of what does not, every call streams through another part.
  double gbps() {
    if (each_ == part_) timed(1);
    const double seconds = timed(passes_);
    const double touched = traffic_ == Traffic::update ? 2.0 : 1.0;
    return touched * 4e-9 * static_cast<double>(part_ * executor_.workers() * passes_) / seconds;
  }

 private:
  static constexpr index_t granule = 256;  // two runs of 8 vectors
  static constexpr double largest_cached = 16.0 * (1 << 20), beyond_caches = 256.0 * (1 << 20);

  double timed(index_t passes) {
    const double start = seconds_now(base_);
    executor_.run([&](index_t worker, index_t) {
      for (index_t i = 0; i < passes; ++i) {
        const index_t at = (at_ + i * part_) % each_;
        detail::stream_once<Arch>(traffic_, memory_.data() + worker * each_ + at, part_);
      }
    });
    at_ = (at_ + passes * part_) % each_;
    return seconds_now(base_) - start;
  }

  Traffic traffic_;
  Executor executor_;
  TimeBase base_;
  index_t part_ = 0, each_ = 0;  ///< floats of a worker: in one pass, in all
  index_t at_ = 0, passes_ = 1;
  Buffer<float> memory_;
};

}  // namespace measure
