// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Random numbers as a function of (seed, stream, step, element): Philox4x32-10.

#include <array>
#include <cmath>
#include <cstdint>

#include "ropewalk/core/config.hpp"
#include "ropewalk/core/elementary.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Four 32-bit words of the Philox4x32-10 bijection (Salmon et al., SC 2011).
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                              std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * counter[0];
    const std::uint64_t b = 0xCD9E8D57ull * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// Stateless generator: the same numbers for any thread count, order and restart.
struct Random {
  std::uint64_t seed = 0;
  std::uint32_t stream = 0;  ///< what the numbers are for: one per tensor, sampler, data set
  std::uint32_t step = 0;

  constexpr std::uint64_t bits(std::uint64_t element) const {
    const auto r =
        philox({static_cast<std::uint32_t>(element), static_cast<std::uint32_t>(element >> 32),
                stream, step},
               {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    return std::uint64_t{r[1]} << 32 | r[0];
  }
  /// Uniform in [0, 1), 53 bits.
  constexpr double uniform(std::uint64_t element) const {
    return static_cast<double>(bits(element) >> 11) * 0x1p-53;
  }
  /// Standard normal (Box-Muller), from our own log and sine: the same bits on every machine.
  double normal(std::uint64_t element) const {
    const double radius_uniform = 1 - uniform(2 * element);  // in (0, 1]: log stays finite
    const double r = std::sqrt(-2 * elementary::log(radius_uniform));
    return r * elementary::sincos_turns(static_cast<std::int64_t>(bits(2 * element + 1))).cos;
  }
};

}  // namespace ropewalk::inline ROPEWALK_ABI
