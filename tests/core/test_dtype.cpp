// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "ropewalk/core/dtype.hpp"

using namespace ropewalk;

TEST_CASE("core/dtype: every bf16 and f16 pattern survives the way to float and back") {
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const bf16 b{static_cast<std::uint16_t>(bits)};
    const f16 h{static_cast<std::uint16_t>(bits)};
    if (std::isnan(to_float(b))) {
      CHECK(std::isnan(to_float(to_bf16(to_float(b)))));
    } else {
      REQUIRE(to_bf16(to_float(b)) == b);
    }
    if (std::isnan(to_float(h))) {
      CHECK(std::isnan(to_float(to_f16(to_float(h)))));
    } else {
      REQUIRE(to_f16(to_float(h)) == h);
    }
  }
}

TEST_CASE("core/dtype: known values and ties to even") {
  CHECK(to_float(f16{0x3c00}) == 1.0f);
  CHECK(to_float(f16{0x0001}) == 0x1p-24f);
  CHECK(to_float(f16{0x7bff}) == 65504.0f);
  CHECK(to_f16(65519.0f).bits == 0x7bff);
  CHECK(to_f16(65520.0f).bits == 0x7c00);  // ties away from the largest finite: infinity
  CHECK(to_f16(-1e30f).bits == 0xfc00);
  CHECK(to_f16(1.0f + 0x1p-11f).bits == 0x3c00);  // half way: to the even mantissa below
  CHECK(to_f16(1.0f + 3 * 0x1p-11f).bits == 0x3c02);
  CHECK(to_f16(0x1p-25f).bits == 0);  // half of the smallest subnormal: to zero
  CHECK(to_f16(0x1.8p-25f).bits == 1);
  CHECK(to_f16(-0.0f).bits == 0x8000);
  CHECK(to_bf16(1.0f + 0x1p-8f).bits == 0x3f80);
  CHECK(to_bf16(1.0f + 3 * 0x1p-8f).bits == 0x3f82);
  CHECK(to_bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
}

TEST_CASE("core/dtype: rounding is to the nearest of the two neighbours") {
  for (float x = 6.2e-5f; x < 6e4f; x *= 1.0071f) {
    const float down = to_float(f16{static_cast<std::uint16_t>(to_f16(x).bits - 1)});
    const float here = to_float(to_f16(x));
    const float up = to_float(f16{static_cast<std::uint16_t>(to_f16(x).bits + 1)});
    CHECK(std::fabs(here - x) <= std::fabs(down - x));
    CHECK(std::fabs(here - x) <= std::fabs(up - x));
  }
}

TEST_CASE("core/dtype: names parse back") {
  for (const DType t : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    CHECK(parse_dtype(dtype_name(t)) == t);
  }
  CHECK(!parse_dtype("fp32"));
}
