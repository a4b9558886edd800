// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Register<Arch>: what an instruction set does with one of its registers of floats. Floats<Arch>
/// (simd/floats.hpp) is 16 floats in as many registers as that takes.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ropewalk/core/dtype.hpp"
#include "ropewalk/simd/arch.hpp"

namespace ropewalk::inline ROPEWALK_ABI::simd::detail {

/// A float's bits subtracted from this are those of about its reciprocal.
inline constexpr std::int32_t reciprocal_magic = 0x7ef311c7;

/// One hardware register of floats (a plain float for `portable`) and its integer twin.
template <class Arch>
struct Register {
  using Float = xsimd::batch<float, typename Arch::xsimd_arch>;
  using Int = xsimd::batch<std::int32_t, typename Arch::xsimd_arch>;
  static constexpr std::size_t width = Float::size;
  static Float load(const float* p) { return Float::load_unaligned(p); }
  static void store(float* p, Float x) { x.store_unaligned(p); }
  static Float broadcast(float x) { return Float(x); }
  // xsimd 8.1 has no AVX-512 fma of its own: its generic one rounds twice unless contracted.
  static Float fma(Float a, Float b, Float c) {
#if defined(__AVX512F__)
    if constexpr (width == 16) return _mm512_fmadd_ps(a, b, c);
#endif
    return xsimd::fma(a, b, c);
  }
  static Float add(Float a, Float b) { return a + b; }
  static Float sub(Float a, Float b) { return a - b; }
  static Float mul(Float a, Float b) { return a * b; }
  static Float div(Float a, Float b) { return a / b; }
  static Float sqrt(Float a) { return xsimd::sqrt(a); }
  // x86's own: b when unordered. Others' pass every NaN.
  static Float max(Float a, Float b) {
    if constexpr (width == 4) return xsimd::select(a > b, a, b);
    return xsimd::max(a, b);
  }
  static Float min(Float a, Float b) {
    if constexpr (width == 4) return xsimd::select(a < b, a, b);
    return xsimd::min(a, b);
  }
  static Float zero_where_equal(Float x, Float a, Float b) {
    return xsimd::select(a == b, Float(0.f), x);
  }
  static Float power_of_two(Float magic_sum, std::int32_t exponent_bits) {
    const Int n = xsimd::bitwise_cast<Int>(magic_sum) << 23;
    return xsimd::bitwise_cast<Float>(n - Int(exponent_bits));
  }
  /// To nearest, ties to even, in the upper 16 bits; subnormals to zero, NaN stays NaN.
  static Float round_to_bf16(Float x) {
    const Float tiny(std::numeric_limits<float>::min());
    return xsimd::select(xsimd::abs(x) >= tiny, round_normal_to_bf16(x),
                         x * Float(0.0f));  // NaN * 0: quiet
  }
  /// The same for zero, normal numbers, and NaN that arithmetic has made.
  static Float round_normal_to_bf16(Float x) {
    const Int u = xsimd::bitwise_cast<Int>(x);
    const Int upper(static_cast<std::int32_t>(0xffff0000u));
    return xsimd::bitwise_cast<Float>((u + Int(0x7fff) + (u >> 16 & Int(1))) & upper);
  }
  /// As to_bf16(): subnormals stay.
  static Float nearest_bf16(Float x) {
    const Int upper(static_cast<std::int32_t>(0xffff0000u));
    const Int quiet = xsimd::bitwise_cast<Int>(x) | Int(0x400000);
    return xsimd::select(x == x, round_normal_to_bf16(x),
                         xsimd::bitwise_cast<Float>(quiet & upper));
  }
  static Float reciprocal_guess(Float x) {
    return xsimd::bitwise_cast<Float>(Int(reciprocal_magic) - xsimd::bitwise_cast<Int>(x));
  }
  static Float scale_by_power(Float x, Float magic_sum) {
    const Int n = xsimd::bitwise_cast<Int>(magic_sum) << 23;
    return xsimd::bitwise_cast<Float>(xsimd::bitwise_cast<Int>(x) + n);
  }
};

template <>
struct Register<portable> {
  using Float = float;
  static constexpr std::size_t width = 1;
  static float load(const float* p) { return *p; }
  static void store(float* p, float x) { *p = x; }
  static float broadcast(float x) { return x; }
  static float fma(float a, float b, float c) { return std::fma(a, b, c); }
  static float add(float a, float b) { return a + b; }
  static float sub(float a, float b) { return a - b; }
  static float mul(float a, float b) { return a * b; }
  static float div(float a, float b) { return a / b; }
  static float sqrt(float a) { return std::sqrt(a); }
  static float max(float a, float b) { return a > b ? a : b; }  // as maxps: b when unordered
  static float min(float a, float b) { return a < b ? a : b; }
  static float zero_where_equal(float x, float a, float b) { return a == b ? 0.f : x; }
  static float power_of_two(float magic_sum, std::int32_t exponent_bits) {
    const std::uint32_t n = std::bit_cast<std::uint32_t>(magic_sum) << 23;
    return std::bit_cast<float>(n - static_cast<std::uint32_t>(exponent_bits));
  }
  static float round_to_bf16(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    if (x != x || (u & 0x7f800000u) == 0) return x * 0.0f;  // NaN * 0: quiet
    return std::bit_cast<float>((u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u);
  }
  static float round_normal_to_bf16(float x) { return round_to_bf16(x); }
  static float nearest_bf16(float x) { return to_float(to_bf16(x)); }
  static float reciprocal_guess(float x) {
    return std::bit_cast<float>(reciprocal_magic - std::bit_cast<std::int32_t>(x));
  }
  static float scale_by_power(float x, float magic_sum) {
    const std::uint32_t n = std::bit_cast<std::uint32_t>(magic_sum) << 23;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) + n);
  }
};

template <>
struct Register<emulated_amx> : Register<portable> {};

}  // namespace ropewalk::inline ROPEWALK_ABI::simd::detail
