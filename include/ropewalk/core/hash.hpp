// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Content hashes (XXH64): of frequencies, files, configurations and results.

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

// Header-only, and without XXH3, whose inline code would double the compile time of rope headers.
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#ifndef XXH_NO_XXH3
#define XXH_NO_XXH3
#endif
#include <xxhash.h>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Hash of bytes that arrive in pieces; the split into pieces does not matter. Numbers are hashed
/// as their little-endian bytes.
class Hasher {
 public:
  Hasher() { XXH64_reset(&state_, 0); }
  Hasher& bytes(std::span<const std::byte> data) { return update(data.data(), data.size()); }
  /// Length first, so that ("ab", "c") and ("a", "bc") differ.
  Hasher& text(std::string_view s) {
    value(static_cast<std::uint64_t>(s.size()));
    return update(s.data(), s.size());
  }
  template <class T>
  requires(std::integral<T> || std::floating_point<T>) Hasher& value(T v) {
    static_assert(std::endian::native == std::endian::little, "big-endian hosts: swap bytes here");
    return update(&v, sizeof v);
  }
  std::uint64_t digest() const { return XXH64_digest(&state_); }

 private:
  /// Not inlined: g++ 12 would warn, falsely, of reads beyond small values in users' code.
  [[gnu::noinline]] Hasher& update(const void* data, std::size_t size) {
    XXH64_update(&state_, data, size);
    return *this;
  }
  XXH64_state_t state_;
};

inline std::uint64_t content_hash(std::span<const std::byte> data) {
  return XXH64(data.data(), data.size(), 0);
}

/// 16 lower-case hexadecimal digits.
inline std::string hash_text(std::uint64_t hash) {
  constexpr char hex[] = "0123456789abcdef";
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; hash >>= 4) out[i] = hex[hash & 15];
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
