// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/simd/math.hpp"

#include "support/arches.hpp"

using namespace ropewalk;
using simd::Floats;

TEST_CASE("simd/floats: partial loads and stores touch exactly their elements") {
  for_each_arch([]<class Arch>() {
    for (index_t shift = 0; shift < 5; ++shift) {
      for (index_t count = 0; count <= simd::lanes; ++count) {
        // An exact-size buffer: the address sanitizer sees any access beyond it.
        std::vector<float> in(static_cast<std::size_t>(shift + count));
        for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i + 1);
        std::vector<float> out(in.size() + 1, -1.0f);
        const auto x = Floats<Arch>::load_part(in.data() + shift, count);
        float all[simd::lanes];
        x.store(all);
        x.store_part(out.data() + shift, count);
        for (index_t i = 0; i < simd::lanes; ++i) {
          CHECK(all[i] == (i < count ? in[static_cast<std::size_t>(shift + i)] : 0.0f));
        }
        for (index_t i = 0; i < count; ++i) {
          CHECK(out[static_cast<std::size_t>(shift + i)] == all[i]);
        }
        CHECK(out.back() == -1.0f);
      }
    }
  });
}

TEST_CASE("simd/floats: fma rounds once, max passes a NaN on its right, the tree is fixed") {
  for_each_arch([]<class Arch>() {
    using V = Floats<Arch>;
    const float a = 1 + 0x1p-12f;
    float out[simd::lanes];
    fma(V(a), V(a), V(-1 - 0x1p-11f)).store(out);
    CHECK(out[3] == 0x1p-24f);  // lost when the product is rounded first
    const float nan = std::numeric_limits<float>::quiet_NaN();
    max(V(1.0f), V(nan)).store(out);
    CHECK(std::isnan(out[0]));
    float v[simd::lanes];
    for (int i = 0; i < simd::lanes; ++i) v[i] = i == 0 ? 0x1p24f : 1.0f;
    // (2^24 + 1) rounds to 2^24 at the first level and so on; the other 14 ones arrive as pairs.
    float tree[simd::lanes];
    std::copy(v, v + simd::lanes, tree);
    for (int half = 8; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) tree[i] += tree[i + half];
    }
    CHECK(tree_sum(V::load(v)) == tree[0]);
    CHECK(max_lane(V::load(v)) == 0x1p24f);
  });
}

TEST_CASE("simd/floats: lanes are selected, compared and swapped each") {
  for_each_arch([]<class Arch>() {
    using V = Floats<Arch>;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    float a[simd::lanes], b[simd::lanes], out[simd::lanes];
    for (int i = 0; i < simd::lanes; ++i) a[i] = static_cast<float>(i), b[i] = -a[i];
    for (index_t count = -1; count <= simd::lanes + 1; ++count) {
      V::select_first(count, V::load(a), V::load(b)).store(out);
      for (int i = 0; i < simd::lanes; ++i) CHECK(out[i] == (i < count ? a[i] : b[i]));
    }
    swap_neighbours(V::load(a)).store(out);
    for (int i = 0; i < simd::lanes; ++i) CHECK(out[i] == a[i ^ 1]);
    CHECK_FALSE(any_greater(V::load(a), V::load(a)));
    for (int i = 0; i < simd::lanes; ++i) {
      for (const float high : {99.0f, nan}) {
        float x[simd::lanes];
        std::copy(a, a + simd::lanes, x);
        x[i] = high;
        CHECK(any_greater(V::load(x), V::load(a)));
        CHECK(any_greater(V::load(a), V::load(x)) == (high != high));
        if (high == high) CHECK(max_lane(V::load(x)) == high);
      }
    }
    float x[2 * simd::lanes], even[simd::lanes], odd[simd::lanes];
    for (int i = 0; i < 2 * simd::lanes; ++i) x[i] = static_cast<float>(i);
    V u, v;
    V::deinterleave(V::load(x), V::load(x + simd::lanes), u, v);
    u.store(even);
    v.store(odd);
    for (int i = 0; i < simd::lanes; ++i) {
      CHECK(even[i] == x[2 * i]);
      CHECK(odd[i] == x[2 * i + 1]);
    }
  });
}

TEST_CASE("simd/floats: pairs are read and written interleaved") {
  for_each_arch([]<class Arch>() {
    for (index_t count = 0; count <= simd::lanes; ++count) {
      std::vector<float> x(static_cast<std::size_t>(2 * count));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
      Floats<Arch> u, v;
      Floats<Arch>::load_pairs(x.data(), count, u, v);
      Floats<Arch>::store_pairs(x.data(), count, v, u);
      for (std::size_t i = 0; i < x.size(); ++i) {
        CHECK(x[i] == static_cast<float>(i % 2 == 0 ? i + 1 : i - 1));
      }
    }
  });
}

TEST_CASE("simd/math: exp2_from is 2^(s - m) whatever m, and moving m is exact") {
  for_each_arch([]<class Arch>() {
    using V = Floats<Arch>;
    for (int i = -20000; i < 20000; ++i) {
      const float s = static_cast<float>(i) * 0.00317f;
      float at_60[simd::lanes], at_70[simd::lanes];
      exp2_from(V(s), simd::Exp2Reference<Arch>(60)).store(at_60);
      exp2_from(V(s), simd::Exp2Reference<Arch>(70)).store(at_70);
      const double exact =
          std::exp2(std::fmax(static_cast<double>(s), 60.0 - simd::exp2_range) - 60);
      // 1.1e-7 of the polynomial and three roundings of 6e-8
      CHECK(std::fabs(static_cast<double>(at_60[5]) / exact - 1) < 2.9e-7);
      if (s > 70 - simd::exp2_range) CHECK(at_70[5] == at_60[5] * 0x1p-10f);
    }
    float out[simd::lanes];
    exp2_from(V(7.0f), simd::Exp2Reference<Arch>(7)).store(out);
    CHECK(out[0] == 1.0f);
    for (const int m : {-100, -1, 0, 1, 60}) {
      exp2_from(V(std::numeric_limits<float>::quiet_NaN()), simd::Exp2Reference<Arch>(m))
          .store(out);
      CHECK(std::isnan(out[0]));
    }
  });
}

TEST_CASE("simd/math: exp is within 2 units in the last place and keeps NaN") {
  for_each_arch([]<class Arch>() {
    using V = Floats<Arch>;
    double worst = 0;
    for (int i = -86990; i < 87990; i += 3) {
      const float x = static_cast<float>(i) * 0.001f;
      float out[simd::lanes];
      simd::exp(V(x)).store(out);
      const double exact = std::exp(static_cast<double>(x));
      worst = std::fmax(worst, std::fabs(static_cast<double>(out[1]) / exact - 1));
    }
    CHECK(worst < 2 * 0x1p-23);
    float out[simd::lanes];
    simd::exp(V(std::numeric_limits<float>::quiet_NaN())).store(out);
    CHECK(std::isnan(out[0]));
    simd::exp(V(-1000.0f)).store(out);
    CHECK(out[0] < 2e-38f);
    simd::exp(V(1000.0f)).store(out);
    CHECK(std::isfinite(out[0]));
  });
}

TEST_CASE("simd/math: the same bits on every instruction set") {
  std::vector<std::uint64_t> hashes;
  for_each_arch([&hashes]<class Arch>() {
    using V = Floats<Arch>;
    std::uint64_t hash = 0;
    for (int i = -5000; i < 5000; ++i) {
      float out[2][simd::lanes];
      exp2_from(V(static_cast<float>(i) * 0.0123f), simd::Exp2Reference<Arch>(3)).store(out[0]);
      simd::exp(V(static_cast<float>(i) * 0.0123f)).store(out[1]);
      for (const float x : {out[0][0], out[1][15]}) {
        hash = hash * 1099511628211ull + std::bit_cast<std::uint32_t>(x);
      }
    }
    hashes.push_back(hash);
  });
  for (const std::uint64_t h : hashes) CHECK(h == hashes[0]);
}
