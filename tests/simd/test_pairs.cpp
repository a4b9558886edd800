// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/simd/pairs.hpp"
#include "ropewalk/simd/transpose.hpp"

#include "support/arches.hpp"

using namespace ropewalk;
using simd::Floats;

namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

/// The definition in integers: nearest, ties to even, subnormals to zero of their sign, a NaN stays
/// one (its upper half, quiet).
std::uint16_t nearest_bf16(std::uint32_t u) {
  const std::uint32_t magnitude = u & 0x7fffffffu, sign = u >> 16 & 0x8000u;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(u >> 16 | 0x40u);
  if (magnitude < 0x00800000u) return static_cast<std::uint16_t>(sign);
  const std::uint32_t kept = magnitude >> 16, rest = magnitude & 0xffffu;
  const bool up = rest > 0x8000u || (rest == 0x8000u && kept % 2 == 1);
  return static_cast<std::uint16_t>(sign | (kept + (up ? 1 : 0)));
}

/// Every exponent and sign with mantissas around ties, and random patterns.
std::vector<std::uint32_t> patterns(std::size_t random_count) {
  std::vector<std::uint32_t> out;
  for (std::uint32_t upper = 0; upper < 0x10000u; upper += 0x20u) {
    for (const std::uint32_t near : {0x0u, 0x1fu, 0x1u}) {
      for (const std::uint32_t lower : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
        out.push_back((upper + near) << 16 | lower);
      }
    }
  }
  for (const std::uint32_t special :
       {0x7f7fffffu, 0x7f7f8000u, 0x7f7f7fffu, 0x7f800000u, 0x7f800001u, 0x7f80ffffu, 0x7fbfffffu,
        0x7fc00000u, 0x7fffffffu, 0x007fffffu, 0x00800000u, 0x0080ffffu, 0x00000001u}) {
    out.push_back(special);
    out.push_back(special | 0x80000000u);
  }
  const Random random{.seed = 3, .stream = 1, .step = 0};
  for (std::size_t i = 0; i < random_count; ++i) {
    const double u = random.uniform(i);
    out.push_back(static_cast<std::uint32_t>(u * 4294967296.0));
  }
  while (out.size() % 32 != 0) out.push_back(0);
  return out;
}

std::vector<bf16> any_bf16(index_t count) {
  std::vector<bf16> out(static_cast<std::size_t>(count));
  std::uint16_t bits = 0x3a51;  // steps through all exponents but those of NaN
  for (bf16& x : out) {
    bits = static_cast<std::uint16_t>(bits * 5 + 0x3a53);
    x = {static_cast<std::uint16_t>((bits & 0x7f80u) == 0x7f80u ? bits & 0x8fffu : bits)};
  }
  return out;
}

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

}  // namespace

TEST_CASE("simd/pairs: rounding to bf16 is nearest-even with flushed subnormals, in every form") {
  const auto all = patterns(1'000'000);
  std::size_t wrong_scalar = 0;
  for (const std::uint32_t u : all) {
    wrong_scalar += simd::flushed_bf16(from_bits(u)).bits != nearest_bf16(u);
  }
  CHECK(wrong_scalar == 0);
  for_each_arch([&]<class Arch>() {
    using V = Floats<Arch>;
    std::size_t wrong_pairs = 0, wrong_half = 0, wrong_value = 0, low_bits = 0;
    for (std::size_t i = 0; i < all.size(); i += 32) {
      const float* in = reinterpret_cast<const float*>(all.data() + i);
      const V a = V::load(in), b = V::load(in + simd::lanes);
      bf16 both[32], half[16];
      float value[16];
      simd::store_bf16<Arch>(both, a, b);
      simd::store_rounded<Arch>(half, b);
      rounded_to_bf16(a).store(value);
      for (std::size_t j = 0; j < 32; ++j) wrong_pairs += both[j].bits != nearest_bf16(all[i + j]);
      for (std::size_t j = 0; j < 16; ++j) {
        wrong_half += half[j].bits != nearest_bf16(all[i + 16 + j]);
        const bool is_nan = std::isnan(from_bits(all[i + j]));
        wrong_value += (bits_of(value[j]) >> 16) != nearest_bf16(all[i + j]);
        low_bits += !is_nan && (bits_of(value[j]) & 0xffffu) != 0;
      }
    }
    CHECK(wrong_pairs == 0);
    CHECK(wrong_half == 0);
    CHECK(wrong_value == 0);
    CHECK(low_bits == 0);
  });
}

TEST_CASE("simd/pairs: rounding of normal numbers, and rounding that keeps subnormals") {
  const auto all = patterns(100'000);
  for_each_arch([&]<class Arch>() {
    using V = Floats<Arch>;
    std::size_t wrong_normal = 0, wrong_nearest = 0;
    for (std::size_t i = 0; i < all.size(); i += 16) {
      const V x = V::load(reinterpret_cast<const float*>(all.data() + i));
      float normal[16], nearest[16];
      rounded_normal_to_bf16(x).store(normal);
      nearest_bf16(x).store(nearest);
      for (std::size_t j = 0; j < 16; ++j) {
        const std::uint32_t u = all[i + j], magnitude = u & 0x7fffffffu;
        const bool is_made_nan = magnitude == 0x7fc00000u;
        if (magnitude == 0 || is_made_nan ||
            (magnitude >= 0x00800000u && magnitude < 0x7f800000u)) {
          const std::uint32_t allowed = static_cast<std::uint32_t>(nearest_bf16(u)) << 16;
          wrong_normal += bits_of(normal[j]) != allowed;
        }
        const std::uint32_t kept = static_cast<std::uint32_t>(to_bf16(from_bits(u)).bits) << 16;
        wrong_nearest += bits_of(nearest[j]) != kept;
      }
    }
    CHECK(wrong_normal == 0);
    CHECK(wrong_nearest == 0);
  });
}

TEST_CASE("simd/pairs: partial and whole conversions write exactly their elements, woven or not") {
  for_each_arch([]<class Arch>() {
    using V = Floats<Arch>;
    for (index_t count = 0; count <= 75; ++count) {
      std::vector<float> in(static_cast<std::size_t>(count));  // exact size: over-reads show
      for (std::size_t i = 0; i < in.size(); ++i) in[i] = 1.0f + static_cast<float>(i) * 0x1.1p-6f;
      std::vector<bf16> out(in.size() + 2, bf16{0xabcd});
      simd::round_to_bf16<Arch>(in.data(), count, out.data() + 1);
      std::size_t wrong = out.front().bits != 0xabcd || out.back().bits != 0xabcd;
      for (std::size_t i = 0; i < in.size(); ++i) {
        wrong += out[i + 1].bits != nearest_bf16(bits_of(in[i]));
      }
      CHECK(wrong == 0);
      if (count > simd::lanes) continue;
      std::vector<bf16> part(in.size() + 1, bf16{0xabcd});
      std::vector<float> same(in.size() + 1, -3.0f);
      const V x = V::load_part(in.data(), count);
      simd::store_rounded_part<Arch>(part.data(), x, count);
      simd::store_rounded_part<Arch>(same.data(), x, count);
      for (std::size_t i = 0; i < in.size(); ++i) {
        CHECK(part[i].bits == nearest_bf16(bits_of(in[i])));
        CHECK(same[i] == in[i]);
      }
      CHECK(part.back().bits == 0xabcd);
      CHECK(same.back() == -3.0f);
    }
    float even[16], odd[16];
    for (int i = 0; i < 16; ++i) {
      even[i] = static_cast<float>(i) + 0x1.01p-9f;
      odd[i] = -static_cast<float>(i) * 0x1.07p-5f;
    }
    bf16 woven[33];
    woven[32] = {0xabcd};
    simd::store_woven<Arch>(woven, V::load(even), V::load(odd));
    for (int i = 0; i < 16; ++i) {
      CHECK(woven[2 * i].bits == nearest_bf16(bits_of(even[i])));
      CHECK(woven[2 * i + 1].bits == nearest_bf16(bits_of(odd[i])));
    }
    CHECK(woven[32].bits == 0xabcd);
  });
}

TEST_CASE("simd/pairs: widening is exact, and splits pairs") {
  for_each_arch([]<class Arch>() {
    for (index_t count = 0; count <= 70; ++count) {
      const auto in = any_bf16(count);
      std::vector<float> out(in.size() + 1, -5.0f);
      simd::widen<Arch>(in.data(), count, out.data());
      for (std::size_t i = 0; i < in.size(); ++i) {
        REQUIRE(bits_of(out[i]) == static_cast<std::uint32_t>(in[i].bits) << 16);
      }
      CHECK(out.back() == -5.0f);
    }
    const auto in = any_bf16(35);
    for (std::size_t first = 0; first <= 3; ++first) {
      float odd[16], even[16], all[16];
      simd::load_of_pairs<Arch, true>(in.data() + first).store(odd);
      simd::load_of_pairs<Arch, false>(in.data() + first).store(even);
      simd::load_widened<Arch>(in.data() + first).store(all);
      for (std::size_t i = 0; i < 16; ++i) {
        const auto bits = [&](std::size_t at) {
          return static_cast<std::uint32_t>(in[first + at].bits) << 16;
        };
        REQUIRE(bits_of(odd[i]) == bits(2 * i + 1));
        REQUIRE(bits_of(even[i]) == bits(2 * i));
        REQUIRE(bits_of(all[i]) == bits(i));
      }
    }
  });
}

TEST_CASE("simd/pairs: a sum of pairs takes the odd number first") {
  for_each_arch([]<class Arch>() {
    using V = Floats<Arch>;
    float x[32], start[16], got[16];
    for (int i = 0; i < 32; ++i) x[i] = i % 2 == 0 ? 1.0f : -0x1p24f - static_cast<float>(i);
    for (int i = 0; i < 16; ++i) start[i] = 0x1p24f;
    in_order(simd::add_pairs(V::load(x), V::load(x + 16), V::load(start))).store(got);
    for (int i = 0; i < 16; ++i) CHECK(got[i] == (start[i] + x[2 * i + 1]) + x[2 * i]);
  });
}

TEST_CASE("simd/transpose: blocks of floats and of pairs, with strides, nothing beyond") {
  for_each_arch([]<class Arch>() {
    for (const index_t ldi : {16, 17, 64}) {
      for (const index_t ldo : {16, 19, 64}) {
        // The last row ends the buffer: the address sanitizer sees any access beyond it.
        std::vector<float> in(static_cast<std::size_t>(15 * ldi + 16));
        for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
        std::vector<float> out(static_cast<std::size_t>(15 * ldo + 16), -1.0f);
        simd::transpose_16x16<Arch>(in.data(), ldi, out.data(), ldo);
        std::vector<bf16> from(static_cast<std::size_t>(15 * 2 * ldi + 32));
        for (std::size_t i = 0; i < from.size(); ++i) from[i] = {static_cast<std::uint16_t>(i)};
        std::vector<bf16> to(static_cast<std::size_t>(15 * 2 * ldo + 32), bf16{0xffff});
        simd::transpose_16x16_pairs<Arch>(from.data(), 2 * ldi, to.data(), 2 * ldo);
        for (index_t j = 0; j < 16; ++j) {
          for (index_t i = 0; i < (j < 15 ? ldo : 16); ++i) {
            const auto at = static_cast<std::size_t>(j * ldo + i);
            REQUIRE(out[at] == (i < 16 ? in[static_cast<std::size_t>(i * ldi + j)] : -1.0f));
            for (std::size_t k = 0; k < 2; ++k) {
              const auto source = static_cast<std::size_t>(2 * (i * ldi + j)) + k;
              REQUIRE(to[2 * at + k] == (i < 16 ? from[source] : bf16{0xffff}));
            }
          }
        }
      }
    }
  });
}

#if defined(__SSE__)
TEST_CASE("simd/pairs: FlushSubnormals flushes while it lives and restores what it found") {
  const unsigned before = _mm_getcsr();
  volatile float tiny = 0x1p-120f, factor = 0x1p-10f, subnormal = 0x1p-130f, large = 0x1p100f;
  {
    const simd::FlushSubnormals flush(true);
    const volatile float product = tiny * factor, scaled = subnormal * large;
    CHECK(bits_of(product) == 0);
    CHECK(bits_of(scaled) == 0);
    { const simd::FlushSubnormals inner(true); }
    CHECK((_mm_getcsr() & 0x8040u) == 0x8040u);
  }
  CHECK(_mm_getcsr() == before);
  {
    const simd::FlushSubnormals flush(false);
    const volatile float product = tiny * factor;
    CHECK(product == 0x1p-130f);
  }
  // Rounding modes and masks of the caller survive too.
  _mm_setcsr((before & ~0x6000u) | 0x2000u);
  const unsigned down = _mm_getcsr();
  {
    const simd::FlushSubnormals flush(true);
    CHECK((_mm_getcsr() & 0x6000u) == 0x2000u);
  }
  const unsigned after = _mm_getcsr();
  _mm_setcsr(before);
  CHECK((after & ~0x3fu) == (down & ~0x3fu));  // but for the flags of what happened meanwhile
}
#endif
