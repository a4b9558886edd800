// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A random order of n things as a function: nothing to store, nothing to replay.

#include <cstdint>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/rng.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A bijection of [0, size) that looks random: four rounds of a Feistel network on the next power
/// of four, walked until the result is below size (Black and Rogaway, CT-RSA 2002). The same on
/// every machine. **Cost:** fewer than 4 walks on average.
class Permutation {
 public:
  /// Of the numbers that `random` gives; `random.step` may be an epoch.
  Permutation(std::uint64_t size, Random random) : size_(size), random_(random) {
    require(size >= 1, "a size of at least 1");
    while (half_bits_ < 31 && (std::uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
  }
  std::uint64_t operator()(std::uint64_t i) const {
    do {
      i = encipher(i);
    } while (i >= size_);
    return i;
  }

 private:
  std::uint64_t encipher(std::uint64_t x) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
    std::uint64_t left = x >> half_bits_, right = x & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t mixed = left ^ (random_.bits(round << 32 | right) & mask);
      left = right;
      right = mixed;
    }
    return left << half_bits_ | right;
  }

  std::uint64_t size_;
  Random random_;
  unsigned half_bits_ = 1;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
