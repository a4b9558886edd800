// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The instruction sets that kernels are instantiated for; the only file that names xsimd's.

#include <concepts>

#include <xsimd/xsimd.hpp>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {
namespace simd {

/// Scalar code with std::fma; any machine. The compiler may vectorise it.
struct portable {
  static constexpr const char* name = "portable";
  static constexpr bool rounds_fma_once = true;
};

#if defined(__AVX2__) && defined(__FMA__)
struct avx2 {
  static constexpr const char* name = "avx2";
  static constexpr bool rounds_fma_once = true;
  using xsimd_arch = xsimd::fma3<xsimd::avx2>;
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
struct avx512 {
  static constexpr const char* name = "avx512";
  static constexpr bool rounds_fma_once = true;
  using xsimd_arch = xsimd::avx512bw;
};
#endif

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
/// AVX-512 and the dot product of bf16 pairs; differs from avx512 in nothing else.
struct avx512bf16 {
  static constexpr const char* name = "avx512bf16";
  static constexpr bool rounds_fma_once = true;
  using xsimd_arch = xsimd::avx512bw;
};
#endif

#if defined(ROPEWALK_AMX)
/// avx512bf16 with products of bf16 matrix tiles (AMX), whose sums have an order of their own
/// (simd/matrix_tiles.hpp). A process may use it once request_matrix_tiles() has said so.
struct amx {
  static constexpr const char* name = "amx";
  static constexpr bool rounds_fma_once = true;
  using xsimd_arch = xsimd::avx512bw;
};
#endif
#if defined(__aarch64__) && defined(__ARM_NEON)
/// Advanced SIMD of 64-bit ARM.
struct neon {
  static constexpr const char* name = "neon";
  static constexpr bool rounds_fma_once = true;
  using xsimd_arch = xsimd::neon64;
};
#endif
/// What gives the bits of amx on any machine, slowly: for tests, and to see others' results.
struct emulated_amx {
  static constexpr const char* name = "emulated_amx";
  static constexpr bool rounds_fma_once = true;
};

/// An instruction set that may compute results: `name` goes into them, and its fused multiply-add
/// rounds once, without which sums would have other bits than on every other set (docs/design.md,
/// canonical arithmetic). xsimd's fma does not for sets that lack the instruction.
template <class A>
concept FusedInstructionSet =
    std::convertible_to<decltype(A::name), const char*> && A::rounds_fma_once;

/// The widest set that this translation unit is compiled for, but amx, which wants a permission.
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
using native = avx512bf16;
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
using native = avx512;
#elif defined(__AVX2__) && defined(__FMA__)
using native = avx2;
#elif defined(__aarch64__) && defined(__ARM_NEON)
using native = neon;
#else
using native = portable;
#endif
/// The same and amx.
#if defined(ROPEWALK_AMX)
using widest = amx;
#else
using widest = native;
#endif

}  // namespace simd
}  // namespace ropewalk::inline ROPEWALK_ABI
