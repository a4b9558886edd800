// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Version, ABI namespace and the compiler switches that the library depends on.

// -ffast-math lets the compiler reassociate sums and treat NaN as impossible, which breaks the
// canonical arithmetic (docs/design.md) and turns every check for a non-finite loss into `false`.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#ifndef ROPEWALK_ALLOW_FAST_MATH
#error "ropewalk must not be compiled with -ffast-math or -ffinite-math-only"
#endif
#endif

#define ROPEWALK_VERSION_MAJOR 0
#define ROPEWALK_VERSION_MINOR 1
#define ROPEWALK_VERSION_PATCH 0

// The widest instruction set of this translation unit is part of the ABI tag: units compiled with
// different flags get link errors instead of silently sharing each other's inline code.
#ifndef ROPEWALK_ABI
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define ROPEWALK_ABI v0_1_avx512bf16
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define ROPEWALK_ABI v0_1_avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define ROPEWALK_ABI v0_1_avx2
#else
#define ROPEWALK_ABI v0_1_base
#endif
#endif

// What the instruction set amx (simd/arch.hpp) is compiled for; clang 14 spells it otherwise.
#if (defined(__AMX_TILE__) || defined(__AMXTILE__)) &&                            \
    (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__AVX512BF16__) && \
    defined(__AVX512BW__) && defined(__AVX512DQ__)
#define ROPEWALK_AMX 1
#endif

// Before a loop of a constant number of rounds: unroll it, so that arrays of vectors indexed in it
// stay in registers. Cheaper to compile than simd::unroll(), which gives constant indices.
#if defined(__clang__)
#define ROPEWALK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define ROPEWALK_UNROLL _Pragma("GCC unroll 64")
#endif

namespace ropewalk::inline ROPEWALK_ABI {

inline constexpr int version_major = ROPEWALK_VERSION_MAJOR;
inline constexpr int version_minor = ROPEWALK_VERSION_MINOR;
inline constexpr int version_patch = ROPEWALK_VERSION_PATCH;

/// Names the summation order (docs/design.md, canonical arithmetic). Results that carry different
/// ids may differ in the last bits; it changes with panel width, lane count, key block or rule.
inline constexpr const char* numerics_id = "canon2-p64-l16-k512";
/// The same for bf16 operands that are multiplied by matrix tiles: sums over groups of 32.
inline constexpr const char* matrix_tile_numerics_id = "canon2-p64-l16-k512-t32";
/// The same of training with bf16 operands, those of attention among them (a16).
inline constexpr const char* bf16_training_numerics_id = "canon2-p64-l16-k512-a16";
inline constexpr const char* matrix_tile_training_numerics_id = "canon2-p64-l16-k512-t32-a16";

}  // namespace ropewalk::inline ROPEWALK_ABI
