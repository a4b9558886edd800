// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/rotate.hpp"
#include "ropewalk/rope/yarn.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

double pair_norm(float a, float b) {
  return std::hypot(static_cast<double>(a), static_cast<double>(b));
}

/// Rotation of one head straight from the definition, in double, with the rows' own cos and sin.
void check_head(const std::vector<float>& before, const float* after, PairLayout layout,
                const float* cos, const float* sin, index_t pairs, double sign) {
  for (index_t i = 0; i < pairs; ++i) {
    const auto u = static_cast<std::size_t>(layout == PairLayout::half_split ? i : 2 * i);
    const auto v =
        static_cast<std::size_t>(layout == PairLayout::half_split ? i + pairs : 2 * i + 1);
    const double c = static_cast<double>(cos[i]), s = sign * static_cast<double>(sin[i]);
    const double x = static_cast<double>(before[u]), y = static_cast<double>(before[v]);
    const double bound = 2e-7 * pair_norm(before[u], before[v]) * std::hypot(c, s);
    CHECK(std::fabs(static_cast<double>(after[u]) - (x * c - y * s)) <= bound);
    CHECK(std::fabs(static_cast<double>(after[v]) - (y * c + x * s)) <= bound);
    // The canonical bits: of each pair's two products the sine's is rounded first.
    const float sine = static_cast<float>(sign) * sin[i];
    CHECK(after[u] == std::fma(before[u], cos[i], before[v] * -sine));
    CHECK(after[v] == std::fma(before[v], cos[i], before[u] * sine));
  }
}

}  // namespace

TEST_CASE("rope/rotate: the worked example of both layouts, d = 4, b = 10000, p = 1") {
  for_each_arch([]<class Arch>() {
    const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 4});
    const std::int64_t one[] = {1};
    const RotaryRows rows = make_rotary_rows(plan, one);
    const double expected[2][4] = {
        {-1.9841106485555495, 1.959900667496664, 2.4623779024123156, 4.019799668334994},
        {-1.1426396637476532, 1.922075596544176, 2.9598506679133294, 4.029799501669161}};
    for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
      float x[4] = {1, 2, 3, 4};
      rotate<Arch>(HeadsView<float>(x, {1, 1, 4}), rows, layout);
      for (std::size_t i = 0; i < 4; ++i) {
        const double want = expected[layout == PairLayout::half_split ? 0 : 1][i];
        CHECK(static_cast<double>(x[i]) == doctest::Approx(want).epsilon(2e-7));
      }
    }
  });
}

TEST_CASE("rope/rotate: every head_dim, partial rotation, both layouts, both directions") {
  const Yarn policy{.factor = 4, .original_max_position_embeddings = 4096};
  for_each_arch([&policy]<class Arch>() {
    for (index_t pairs = 1; pairs <= 36; pairs += (pairs < 20 ? 1 : 4)) {
      for (const index_t rest : {0, 6}) {
        const index_t head_dim = 2 * pairs + rest;
        if (pairs < 2) continue;  // a ramp needs more than one pair
        const FrequencyPlan plan = make_frequency_plan(policy, {.rotary_dim = 2 * pairs});
        const std::int64_t positions[] = {70000, 3};
        const RotaryRows rows = make_rotary_rows(plan, positions);
        for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
          for (const Rotation direction : {Rotation::forward, Rotation::transpose}) {
            const auto before = normal_floats(head_dim, static_cast<std::uint32_t>(pairs));
            std::vector<float> x(before);
            x.insert(x.end(), before.begin(), before.end());
            rotate<Arch>(HeadsView<float>(x.data(), {2, 1, head_dim}), rows, layout, direction);
            for (std::size_t t = 0; t < 2; ++t) {
              const auto row = rows.row[t] * pairs;
              const float* head = x.data() + static_cast<index_t>(t) * head_dim;
              check_head(before, head, layout, rows.cos.data() + row, rows.sin.data() + row, pairs,
                         direction == Rotation::forward ? 1 : -1);
              for (index_t i = 2 * pairs; i < head_dim; ++i) {
                CHECK(head[i] == before[static_cast<std::size_t>(i)]);
              }
            }
          }
        }
      }
    }
  });
}

TEST_CASE("rope/rotate: forward then transpose is attention_factor^2 times the identity") {
  const Yarn policy{.factor = 8, .original_max_position_embeddings = 4096};
  const FrequencyPlan plan = make_frequency_plan(policy, {.rotary_dim = 64});
  std::vector<std::int64_t> positions = {0, 1, 1000, 1 << 24};
  const RotaryRows rows = make_rotary_rows(plan, positions);
  const double factor = plan.attention_factor * plan.attention_factor;
  CHECK(factor > 1.4);
  const auto before = normal_floats(4 * 2 * 64, 3);
  auto x = before;
  const HeadsView<float> view(x.data(), {4, 2, 64});
  rotate(view, rows, PairLayout::half_split);
  rotate(view, rows, PairLayout::half_split, Rotation::transpose);
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(static_cast<double>(x[i]) ==
          doctest::Approx(factor * static_cast<double>(before[i])).epsilon(2e-6).scale(0.5));
  }
}

TEST_CASE("rope/rotate: a permutation of channels takes one layout into the other, bit for bit") {
  constexpr index_t pairs = 20;
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 2 * pairs});
  const std::int64_t positions[] = {12345};
  const RotaryRows rows = make_rotary_rows(plan, positions);
  auto half = normal_floats(2 * pairs, 5);
  std::vector<float> woven(half.size());
  const auto at = [](index_t i) { return static_cast<std::size_t>(i); };
  for (index_t i = 0; i < pairs; ++i) {
    woven[at(2 * i)] = half[at(i)], woven[at(2 * i + 1)] = half[at(i + pairs)];
  }
  rotate(HeadsView<float>(half.data(), {1, 1, 2 * pairs}), rows, PairLayout::half_split);
  rotate(HeadsView<float>(woven.data(), {1, 1, 2 * pairs}), rows, PairLayout::interleaved);
  for (index_t i = 0; i < pairs; ++i) {
    CHECK(woven[at(2 * i)] == half[at(i)]);
    CHECK(woven[at(2 * i + 1)] == half[at(i + pairs)]);
  }
}

TEST_CASE("rope/rotate: scores depend on the distance alone, up to position 2^24") {
  constexpr index_t d = 128;
  const FrequencyPlan plan =
      make_frequency_plan(AdjustedBase{.rope_theta = 5e5}, {.rotary_dim = d});
  const auto q = normal_floats(d, 1), k = normal_floats(d, 2);
  const auto score = [&](std::int64_t m, std::int64_t n) {
    const std::int64_t positions[] = {m, n};
    const RotaryRows rows = make_rotary_rows(plan, positions);
    std::vector<float> x(q);
    x.insert(x.end(), k.begin(), k.end());
    rotate(HeadsView<float>(x.data(), {2, 1, d}), rows, PairLayout::half_split);
    double sum = 0;
    for (std::size_t i = 0; i < d; ++i) {
      sum += static_cast<double>(x[i]) * static_cast<double>(x[i + d]);
    }
    return sum;
  };
  double q2 = 0, k2 = 0;
  for (std::size_t i = 0; i < d; ++i) {
    q2 += static_cast<double>(q[i]) * static_cast<double>(q[i]);
    k2 += static_cast<double>(k[i]) * static_cast<double>(k[i]);
  }
  for (const std::int64_t shift : {1, 1000, 131072, 1 << 20, (1 << 24) - 4096}) {
    // 2e-7 |q| |k| is the target of the rotation in float
    CHECK(std::fabs(score(3000 + shift, 7 + shift) - score(3000, 7)) < 2e-7 * std::sqrt(q2 * k2));
  }
}

TEST_CASE("rope/rotate: threads, instruction sets and strides do not change bits") {
  constexpr index_t tokens = 37, heads = 3, d = 24;
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = d});
  std::vector<std::int64_t> positions;
  for (index_t t = 0; t < tokens; ++t) positions.push_back(11 * t);
  const RotaryRows rows = make_rotary_rows(plan, positions);
  const auto x = normal_floats(tokens * heads * d, 9);
  for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
    auto reference = x;
    rotate<simd::portable>(HeadsView<float>(reference.data(), {tokens, heads, d}), rows, layout);
    for_each_arch([&]<class Arch>() {
      ThreadPool pool(3);
      auto y = x;
      rotate<Arch>(HeadsView<float>(y.data(), {tokens, heads, d}), rows, layout, Rotation::forward,
                   pool.executor());
      CHECK(y == reference);
      // (heads, tokens, d) storage seen as (tokens, heads, d), with a gap between the rows
      std::vector<float> strided(static_cast<std::size_t>(tokens * heads * (d + 1)), -3.0f);
      const HeadsView<float> view(strided.data(), {tokens, heads, d}, {d + 1, tokens * (d + 1), 1});
      const HeadsView<const float> in(x.data(), {tokens, heads, d});
      const HeadsView<const float> out(reference.data(), {tokens, heads, d});
      for (index_t t = 0; t < tokens; ++t) {
        for (index_t h = 0; h < heads; ++h) {
          for (index_t i = 0; i < d; ++i) view(t, h, i) = in(t, h, i);
        }
      }
      rotate<Arch>(view, rows, layout);
      for (index_t t = 0; t < tokens; ++t) {
        for (index_t h = 0; h < heads; ++h) {
          for (index_t i = 0; i < d; ++i) REQUIRE(view(t, h, i) == out(t, h, i));
          CHECK((&view(t, h, 0))[d] == -3.0f);
        }
      }
    });
  }
}

TEST_CASE("rope/rotate: a scaled head written elsewhere has the bits of rotating, then scaling") {
  const float scale = 0.18033688f;
  for_each_arch([scale]<class Arch>() {
    for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
      for (index_t pairs = 0; pairs <= 130; pairs += (pairs < 34 ? 1 : 16)) {
        for (const index_t first : {0, 3}) {
          const index_t head_dim = first + 2 * pairs + (pairs % 3 == 0 ? 5 : 0);
          const auto size = static_cast<std::size_t>(head_dim);
          const auto head = normal_floats(head_dim + 1, static_cast<std::uint32_t>(pairs));
          const auto table = normal_floats(2 * pairs + 1, 77);
          const HeadTurn turn{table.data(), table.data() + pairs, pairs, first};
          auto expected = head;
          if (pairs > 0) {
            rotate_head<Arch>(layout, expected.data() + first, turn.cos, turn.sin, pairs,
                              Rotation::forward);
          }
          // One element more than the head: it must stay.
          std::vector<float> out(size + 1, -7.0f);
          rotate_head_to<Arch>(layout, head.data(), head_dim, turn, scale, out.data());
          std::vector<bf16> rounded(size + 1, to_bf16(-7.0f));
          rotate_head_to<Arch>(layout, head.data(), head_dim, turn, scale, rounded.data());
          for (std::size_t i = 0; i < size; ++i) {
            REQUIRE(out[i] == expected[i] * scale);
            REQUIRE(rounded[i] == to_bf16(expected[i] * scale));
          }
          REQUIRE(out[size] == -7.0f);
          REQUIRE(rounded[size] == to_bf16(-7.0f));
        }
      }
    }
  });
}

TEST_CASE("rope/rotate: bf16 heads round ties to even and keep infinity and NaN") {
  const auto of_bits = [](std::uint32_t u) { return std::bit_cast<float>(u); };
  const std::vector<float> head = {of_bits(0x3f808000u),
                                   of_bits(0x3f818000u),
                                   of_bits(0x3f808001u),
                                   of_bits(0x7f7fffffu),
                                   of_bits(0x7f800000u),
                                   of_bits(0xff800000u),
                                   of_bits(0x7fc00000u),
                                   of_bits(0x7f80ffffu),
                                   of_bits(0x80000001u),
                                   0.0f,
                                   -0.0f,
                                   of_bits(0x007fffffu)};
  for_each_arch([&head]<class Arch>() {
    std::vector<bf16> out(head.size());
    rotate_head_to<Arch>(PairLayout::half_split, head.data(), static_cast<index_t>(head.size()),
                         HeadTurn{}, 1.0f, out.data());
    for (std::size_t i = 0; i < head.size(); ++i) CHECK(out[i].bits == to_bf16(head[i]).bits);
  });
}

TEST_CASE("rope/rotate: heads of a token together have the bits of each alone") {
  for_each_arch([]<class Arch>() {
    for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
      for (const index_t pairs : {1, 8, 16, 23, 32, 48, 64, 75, 112, 128, 200}) {
        constexpr index_t heads = 5;
        const index_t stride = 2 * pairs + 3;
        const auto table = normal_floats(2 * pairs, 4);
        auto together = normal_floats(heads * stride, 6);
        auto alone = together;
        rotate_heads<Arch>(layout, together.data(), heads, stride, table.data(),
                           table.data() + pairs, pairs, Rotation::transpose);
        for (index_t h = 0; h < heads; ++h) {
          rotate_head<Arch>(layout, alone.data() + h * stride, table.data(), table.data() + pairs,
                            pairs, Rotation::transpose);
        }
        CHECK(together == alone);
      }
    }
  });
}

TEST_CASE("rope/rotate: shapes that do not fit are refused") {
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8});
  const std::int64_t positions[] = {0, 1};
  const RotaryRows rows = make_rotary_rows(plan, positions);
  std::vector<float> x(64);
  CHECK_THROWS_AS(rotate(HeadsView<float>(x.data(), {3, 1, 8}), rows, PairLayout::half_split),
                  Error);
  CHECK_THROWS_AS(rotate(HeadsView<float>(x.data(), {2, 1, 6}), rows, PairLayout::half_split),
                  Error);
}
