// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Storage types of tensors: float, double, and the 16-bit formats bf16 and f16 with their
/// rounding.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// bfloat16: the upper half of a float. Storage only; arithmetic happens in float.
struct bf16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bf16, bf16) = default;
};

/// IEEE binary16. Storage only; arithmetic happens in float.
struct f16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(f16, f16) = default;
};

/// Exact.
constexpr float to_float(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

/// Exact, subnormals included.
constexpr float to_float(f16 x) {
  const std::uint32_t sign = std::uint32_t{x.bits & 0x8000u} << 16;
  const std::uint32_t exponent = (x.bits >> 10) & 31u;
  const std::uint32_t mantissa = x.bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero and subnormals
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

constexpr float to_float(float x) { return x; }
constexpr float to_float(double x) { return static_cast<float>(x); }

/// Round to nearest, ties to even; NaN stays NaN (quiet).
constexpr bf16 to_bf16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

/// Round to nearest, ties to even, subnormals to zero (as vcvtneps2bf16); NaN stays NaN.
constexpr bf16 flushed_bf16(float x) {
  const bf16 y = to_bf16(x);
  const bool subnormal = (std::bit_cast<std::uint32_t>(x) & 0x7f800000u) == 0;
  return subnormal ? bf16{static_cast<std::uint16_t>(y.bits & 0x8000u)} : y;
}

/// x as kernels store it: itself, or flushed_bf16.
template <class T>
constexpr T rounded_to(float x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return flushed_bf16(x);
  } else {
    return x;
  }
}

/// Round to nearest, ties to even; overflow becomes infinity, NaN stays NaN (quiet).
constexpr f16 to_f16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t a = u & 0x7fffffffu;
  const auto pack = [sign](std::uint32_t v) {
    return f16{static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(v))};
  };
  if (a > 0x7f800000u) return pack(0x7e00u);
  if (a >= 0x477ff000u) return pack(0x7c00u);  // 65520 and above round to infinity
  if (a >= 0x38800000u) {                      // normal: 2^-14 and above
    const std::uint32_t rounded = a + 0xfffu + ((a >> 13) & 1u);
    return pack((rounded - 0x38000000u) >> 13);
  }
  // Adding 0.5 aligns the subnormal's last bit with the last bit of the float sum, which rounds.
  const float sum = std::bit_cast<float>(a) + 0.5f;
  return pack(std::bit_cast<std::uint32_t>(sum) - 0x3f000000u);
}

enum class DType { f32, bf16, f16, f64 };

constexpr std::size_t size_of(DType t) { return t == DType::f64 ? 8 : t == DType::f32 ? 4 : 2; }

constexpr std::string_view dtype_name(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::f64:
      return "f64";
  }
  return "f32";
}

constexpr std::optional<DType> parse_dtype(std::string_view name) {
  for (const DType t : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    if (name == dtype_name(t)) return t;
  }
  return std::nullopt;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
