// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Floats<Arch>: 16 floats, the lane count of the canonical arithmetic on every instruction set.

#include <cstdint>
#include <cstring>
#include <utility>

#include "ropewalk/core/tensor_view.hpp"
#include "ropewalk/simd/register.hpp"
#include "ropewalk/simd/whole_vector.hpp"

namespace ropewalk::inline ROPEWALK_ABI {
namespace simd {

/// Lanes of a vector; one AVX-512 register, two of AVX2, four of NEON, 16 scalars.
inline constexpr index_t lanes = 16;

/// f(0), f(1), ... f(N - 1) with compile-time arguments: a loop that is always unrolled, so that
/// arrays of vectors indexed by it stay in registers.
template <std::size_t N, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<std::size_t... I>(std::index_sequence<I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<std::size_t, I>{}), ...);
  }
  (std::make_index_sequence<N>{});
}

/// 16 floats. Arithmetic is lane by lane and rounds once per operation; a bare product must not be
/// added to anything (compilers contract it even through intrinsics): use fma().
template <class Arch>
class Floats {
  using R = detail::Register<Arch>;
  using Whole = detail::WholeVector<R::width>;
  static constexpr bool has_whole = detail::has_whole_vector<R::width>;
  static constexpr std::size_t registers = lanes / R::width;

 public:
  /// Indeterminate: a constructor that wrote would keep arrays of vectors out of registers (g++).
  Floats() = default;
  [[gnu::always_inline]] explicit Floats(float x) {
    if constexpr (registers == 1) {
      r_[0] = R::broadcast(x);
      return;
    }
    each_register([&](auto i) __attribute__((always_inline)) { r_[i] = R::broadcast(x); });
  }

  /// p[0..15]; any alignment.
  [[gnu::always_inline]] static Floats load(const float* p) {
    Floats x;
    if constexpr (registers == 1) {
      x.r_[0] = R::load(p);
      return x;
    }
    each_register([&](auto i)
                      __attribute__((always_inline)) { x.r_[i] = R::load(p + i * R::width); });
    return x;
  }
  /// p[0..count - 1], then zeros; reads nothing beyond. 0 <= count <= 16.
  [[gnu::always_inline]] static Floats load_part(const float* p, index_t count) {
    if (count >= lanes) return load(p);
    if constexpr (has_whole) {
      return from_raw(Whole::load_first(p, count));
    } else {
      alignas(64) float buffer[lanes] = {};
      if (count > 0) std::memcpy(buffer, p, static_cast<std::size_t>(count) * sizeof(float));
      return load(buffer);
    }
  }
  [[gnu::always_inline]] void store(float* p) const {
    if constexpr (registers == 1) return R::store(p, r_[0]);
    each_register([&](auto i)
                      __attribute__((always_inline)) { R::store(p + i * R::width, r_[i]); });
  }
  /// Writes the first `count` lanes only.
  [[gnu::always_inline]] void store_part(float* p, index_t count) const {
    if (count >= lanes) return store(p);
    if constexpr (has_whole) {
      Whole::store_first(p, count, raw());
    } else {
      alignas(64) float buffer[lanes];
      store(buffer);
      if (count > 0) std::memcpy(p, buffer, static_cast<std::size_t>(count) * sizeof(float));
    }
  }

  [[gnu::always_inline]] friend Floats operator+(Floats a, Floats b) { return map(&R::add, a, b); }
  [[gnu::always_inline]] friend Floats operator-(Floats a, Floats b) { return map(&R::sub, a, b); }
  [[gnu::always_inline]] friend Floats operator*(Floats a, Floats b) { return map(&R::mul, a, b); }
  [[gnu::always_inline]] friend Floats operator/(Floats a, Floats b) { return map(&R::div, a, b); }
  /// The larger of each lane; b where either is NaN.
  [[gnu::always_inline]] friend Floats max(Floats a, Floats b) { return map(&R::max, a, b); }
  [[gnu::always_inline]] friend Floats min(Floats a, Floats b) { return map(&R::min, a, b); }
  /// Rounded once; NaN below zero.
  [[gnu::always_inline]] friend Floats sqrt(Floats a) {
    each_register([&](auto i) __attribute__((always_inline)) { a.r_[i] = R::sqrt(a.r_[i]); });
    return a;
  }
  /// a * b + c, rounded once.
  [[gnu::always_inline]] friend Floats fma(Floats a, Floats b, Floats c) {
    if constexpr (registers == 1) {
      c.r_[0] = R::fma(a.r_[0], b.r_[0], c.r_[0]);
      return c;
    }
    each_register([&](auto i) __attribute__((always_inline)) {
      c.r_[i] = R::fma(a.r_[i], b.r_[i], c.r_[i]);
    });
    return c;
  }
  /// x, but 0 where a == b.
  [[gnu::always_inline]] friend Floats zero_where_equal(Floats x, Floats a, Floats b) {
    each_register([&](auto i) __attribute__((always_inline)) {
      x.r_[i] = R::zero_where_equal(x.r_[i], a.r_[i], b.r_[i]);
    });
    return x;
  }
  /// 2^(n - k) for the integer n that sits in the low bits of a sum with 1.5 * 2^23, given
  /// exponent_bits = (k - 127) << 23; -126 <= n - k <= 127.
  [[gnu::always_inline]] friend Floats power_of_two(Floats magic_sum, std::int32_t exponent_bits) {
    each_register([&](auto i) __attribute__((always_inline)) {
      magic_sum.r_[i] = R::power_of_two(magic_sum.r_[i], exponent_bits);
    });
    return magic_sum;
  }
  /// x * 2^n by adding n to the exponents, for the integer n (positive or not) that sits in the low
  /// bits of a sum with 1.5 * 2^23. x must be normal and stay so, or NaN with a NaN sum.
  [[gnu::always_inline]] friend Floats scale_by_power(Floats x, Floats magic_sum) {
    each_register([&](auto i) __attribute__((always_inline)) {
      x.r_[i] = R::scale_by_power(x.r_[i], magic_sum.r_[i]);
    });
    return x;
  }
  /// x rounded to bf16's precision: to nearest, ties to even, subnormals to zero; NaN stays NaN.
  [[gnu::always_inline]] friend Floats rounded_to_bf16(Floats x) {
    each_register([&](auto i)
                      __attribute__((always_inline)) { x.r_[i] = R::round_to_bf16(x.r_[i]); });
    return x;
  }
  /// The same for zero, normal numbers, and NaN that arithmetic has made.
  [[gnu::always_inline]] friend Floats rounded_normal_to_bf16(Floats x) {
    each_register([&](auto i) __attribute__((always_inline)) {
      x.r_[i] = R::round_normal_to_bf16(x.r_[i]);
    });
    return x;
  }
  /// The same, but subnormals stay.
  [[gnu::always_inline]] friend Floats nearest_bf16(Floats x) {
    each_register([&](auto i)
                      __attribute__((always_inline)) { x.r_[i] = R::nearest_bf16(x.r_[i]); });
    return x;
  }
  /// Lanes 0, 2, 4, .. of the 32 floats (a, b) to `even`, the others to `odd`.
  [[gnu::always_inline]] static void deinterleave(Floats a, Floats b, Floats& even, Floats& odd) {
    deinterleave_apart(a, b, even, odd);
    even = in_order(even);
    odd = in_order(odd);
  }
  /// The same, but for the order of the lanes of both, which in_order() makes up for.
  [[gnu::always_inline]] static void deinterleave_apart(Floats a, Floats b, Floats& even,
                                                        Floats& odd) {
    if constexpr (has_whole) {
      even = from_raw(Whole::template every_second_apart<0>(a.raw(), b.raw()));
      odd = from_raw(Whole::template every_second_apart<1>(a.raw(), b.raw()));
    } else {
      alignas(64) float x[2 * lanes];
      a.store(x);
      b.store(x + lanes);
      load_pairs(x, lanes, even, odd);
    }
  }
  [[gnu::always_inline]] friend Floats in_order(Floats x) {
    if constexpr (has_whole) {
      return from_raw(Whole::in_order(x.raw()));
    } else {
      return x;
    }
  }
  /// Lanes 1, 0, 3, 2, ..
  [[gnu::always_inline]] friend Floats swap_neighbours(Floats x) {
    if constexpr (has_whole) {
      return from_raw(Whole::swap_neighbours(x.raw()));
    } else {
      for (std::size_t i = 0; i < registers; i += 2) std::swap(x.r_[i], x.r_[i + 1]);
      return x;
    }
  }
  /// 1 / x within 12 %, for normal positive x below 2^126.
  [[gnu::always_inline]] friend Floats reciprocal_guess(Floats x) {
    each_register([&](auto i)
                      __attribute__((always_inline)) { x.r_[i] = R::reciprocal_guess(x.r_[i]); });
    return x;
  }
  /// a in the lanes below `count`, b in the others.
  [[gnu::always_inline]] static Floats select_first(index_t count, Floats a, Floats b) {
    if constexpr (has_whole) {
      const index_t below = count < 0 ? 0 : count < lanes ? count : lanes;
      return from_raw(Whole::select_first(below, a.raw(), b.raw()));
    } else {
      alignas(64) float x[lanes], y[lanes];
      a.store(x);
      b.store(y);
      for (index_t i = 0; i < lanes; ++i) x[i] = i < count ? x[i] : y[i];
      return load(x);
    }
  }
  /// Whether some lane of a is not less than or equal to that of b: greater, or either is NaN.
  [[gnu::always_inline]] friend bool any_greater(Floats a, Floats b) {
    if constexpr (has_whole) {
      return Whole::any_greater(a.raw(), b.raw());
    } else {
      alignas(64) float x[lanes], y[lanes];
      a.store(x);
      b.store(y);
      bool any = false;
      for (index_t i = 0; i < lanes; ++i) any = any || !(x[i] <= y[i]);
      return any;
    }
  }
  /// Sum of the lanes by the fixed tree of the canonical arithmetic: halves are added, 16 -> 8 -> 4
  /// -> 2 -> 1.
  [[gnu::always_inline]] friend float tree_sum(Floats x) {
    if constexpr (has_whole) {
      return Whole::tree_sum(x.raw());
    } else {
      alignas(64) float v[lanes];
      x.store(v);
      for (int half = lanes / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) v[i] += v[i + half];
      }
      return v[0];
    }
  }
  /// Largest lane (any order gives the same value when no lane is NaN).
  [[gnu::always_inline]] friend float max_lane(Floats x) {
    if constexpr (has_whole) {
      return Whole::max_lane(x.raw());
    } else {
      alignas(64) float v[lanes];
      x.store(v);
      float m = v[0];
      for (const float y : v) m = y > m ? y : m;
      return m;
    }
  }
  /// Reads interleaved pairs (u0, v0, u1, v1, ...): `count` of them exist at p, at most 16 are
  /// read, the rest become zeros.
  [[gnu::always_inline]] static void load_pairs(const float* p, index_t count, Floats& u,
                                                Floats& v) {
    if constexpr (has_whole) {
      const Floats a = load_part(p, 2 * count);
      const Floats b = count > lanes / 2 ? load_part(p + lanes, 2 * count - lanes) : Floats(0.0f);
      deinterleave(a, b, u, v);
    } else {
      alignas(64) float first[lanes] = {}, second[lanes] = {};
      for (index_t i = 0; i < count && i < lanes; ++i) {
        first[i] = p[2 * i];
        second[i] = p[2 * i + 1];
      }
      u = load(first);
      v = load(second);
    }
  }
  /// Inverse of load_pairs.
  [[gnu::always_inline]] static void store_pairs(float* p, index_t count, Floats u, Floats v) {
    if constexpr (has_whole) {
      from_raw(Whole::template weave<false>(u.raw(), v.raw())).store_part(p, 2 * count);
      if (count <= lanes / 2) return;
      const Floats rest = from_raw(Whole::template weave<true>(u.raw(), v.raw()));
      rest.store_part(p + lanes, 2 * count - lanes);
    } else {
      alignas(64) float first[lanes], second[lanes];
      u.store(first);
      v.store(second);
      for (index_t i = 0; i < count && i < lanes; ++i) {
        p[2 * i] = first[i];
        p[2 * i + 1] = second[i];
      }
    }
  }

  /// The registers themselves: of AVX-512 one, of AVX2 two, of NEON four.
  [[gnu::always_inline]] auto raw() const requires(has_whole) {
    if constexpr (registers == 1) {
      return static_cast<typename Whole::Raw>(r_[0]);
    } else if constexpr (registers == 2) {
      return typename Whole::Raw{r_[0], r_[1]};
    } else {
      return typename Whole::Raw{{r_[0], r_[1], r_[2], r_[3]}};
    }
  }
  template <class Raw>
  [[gnu::always_inline]] static Floats from_raw(const Raw& raw) requires(has_whole) {
    Floats x;
    if constexpr (registers == 1) {
      x.r_[0] = raw;
    } else if constexpr (registers == 2) {
      x.r_[0] = raw.low;
      x.r_[1] = raw.high;
    } else {
      each_register([&](auto i) __attribute__((always_inline)) { x.r_[i] = raw.r[i]; });
    }
    return x;
  }

 private:
  /// f(0), f(1), ..; a loop where there are many registers, since unrolling would cost much to
  /// compile and the compiler may vectorise the loop.
  template <class F>
  [[gnu::always_inline]] static void each_register(F&& f) {
    if constexpr (registers == 1) {
      f(std::integral_constant<std::size_t, 0>{});
    } else if constexpr (registers <= 4) {
      unroll<registers>(f);
    } else {
      for (std::size_t i = 0; i < registers; ++i) f(i);
    }
  }
  template <class F>
  [[gnu::always_inline]] static Floats map(F f, Floats a, const Floats& b) {
    if constexpr (registers == 1) {
      a.r_[0] = f(a.r_[0], b.r_[0]);
      return a;
    }
    each_register([&](auto i) __attribute__((always_inline)) { a.r_[i] = f(a.r_[i], b.r_[i]); });
    return a;
  }
  typename R::Float r_[registers];
};

}  // namespace simd
}  // namespace ropewalk::inline ROPEWALK_ABI
