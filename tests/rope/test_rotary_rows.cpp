// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "support/error_of.hpp"

namespace ropewalk {
namespace {

using Positions = std::vector<std::int64_t>;

/// The 256 positions up to each power of two up to 2^24, where errors are largest.
Positions late_positions() {
  Positions positions;
  for (int k = 8; k <= 24; ++k) {
    for (std::int64_t i = 0; i < 256; ++i) positions.push_back((std::int64_t{1} << k) - i);
  }
  return positions;
}

/// Largest error of cos and sin of the rows against the angles position * frequency(pair), taken
/// in long double; values divided by attention_factor.
template <class Frequency>
double worst_error(const RotaryRows& rows, const Positions& positions, const Frequency& frequency,
                   double attention_factor = 1) {
  double worst = 0;
  for (std::size_t t = 0; t < positions.size(); ++t) {
    for (index_t i = 0; i < rows.num_pairs; ++i) {
      const auto at = static_cast<std::size_t>(rows.row[t] * rows.num_pairs + i);
      const long double angle = static_cast<long double>(positions[t]) * frequency(i);
      const auto factor = static_cast<long double>(attention_factor);
      worst = std::max(
          worst, static_cast<double>(
                     std::fabs(std::cos(angle) - static_cast<long double>(rows.cos[at]) / factor)));
      worst = std::max(
          worst, static_cast<double>(
                     std::fabs(std::sin(angle) - static_cast<long double>(rows.sin[at]) / factor)));
    }
  }
  return worst;
}

long double real_power(double base, index_t i, index_t d) {
  return std::pow(static_cast<long double>(base),
                  -2 * static_cast<long double>(i) / static_cast<long double>(d));
}

// Long double angles up to 2^24 are right to 1e-12 where they have 64 bits.
constexpr bool wide_reference = LDBL_MANT_DIG >= 64;

}  // namespace

TEST_CASE("rope/rotary_rows: angles are within 3.1e-8 of b^(-2i/d) p up to position 2^24") {
  if (!wide_reference) {
    MESSAGE("skipped: long double is no wider than double here");
    return;
  }
  // Half a unit in the last place of a float below 1 is 2.98e-8; the rest is the rounding of the
  // frequency to double, 2^-54 * 2^24 = 9e-10.
  const Positions positions = late_positions();
  for (const double theta : {1e4, 5e5, 8e6}) {
    for (const index_t d : {16, 128}) {
      const RotaryRows rows =
          make_rotary_rows(make_frequency_plan(AdjustedBase{theta}, {.rotary_dim = d}), positions);
      CHECK(worst_error(rows, positions, [&](index_t i) { return real_power(theta, i, d); }) <
            3.1e-8);
    }
  }
  const RotaryRows ntk =
      make_rotary_rows(make_frequency_plan(NtkAware{1e4, 8}, {.rotary_dim = 128}), positions);
  CHECK(worst_error(ntk, positions, [](index_t i) {
          return real_power(1e4, i, 128) * real_power(8, i, 126);
        }) < 3.1e-8);
  const RotaryRows linear = make_rotary_rows(
      make_frequency_plan(LinearInterpolation{1e4, 8}, {.rotary_dim = 128}), positions);
  CHECK(worst_error(linear, positions, [](index_t i) { return real_power(1e4, i, 128) / 8; }) <
        3.1e-8);
}

TEST_CASE("rope/rotary_rows: every method's rows are its plan's angles, rounded once") {
  if (!wide_reference) {
    MESSAGE("skipped: long double is no wider than double here");
    return;
  }
  const Positions positions = {0,     1,       2,        255,      256, 1023, 4095,
                               32767, 1048575, 16777215, 16777216, -1,  -5,   -16777215};
  for (const char* spec :
       {"default", "linear:factor=3", "ntk:factor=8", "dynamic:factor=4", "ntk_by_parts:factor=8",
        "yarn:factor=8", "yarn:factor=8,attention_factor=0.75", "yarn_paper:factor=8",
        "llama3:factor=8,low_freq_factor=1,high_freq_factor=4"}) {
    const FrequencyPlan plan = make_frequency_plan(parse_rope(spec, {1e4, 4096}),
                                                   {.rotary_dim = 128, .seq_len = 16777216});
    const RotaryRows rows = make_rotary_rows(plan, positions);
    const double m = plan.attention_factor;
    // Half a unit in the last place: 2^-25 below 1, 2^-24 up to 2; 1e-11 for the turns.
    const double half_ulp = m > 1 ? 0x1p-24 : 0x1p-25;
    CHECK_MESSAGE(worst_error(
                      rows, positions,
                      [&](index_t i) {
                        return static_cast<long double>(plan.inv_freq[static_cast<std::size_t>(i)]);
                      },
                      m) < half_ulp / m + 1e-11,
                  spec);
  }
}

TEST_CASE("rope/rotary_rows: the relative property holds at late positions") {
  // R(m)^T R(n) = R(n - m): each of the three roundings of both products is at most 2^-25.
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{5e5}, {.rotary_dim = 64});
  for (const std::int64_t m : {7, 131071, 1048576, 16000000}) {
    for (const std::int64_t distance : {0, 1, 100, 65537}) {
      const Positions positions = {m, m + distance, distance};
      const RotaryRows r = make_rotary_rows(plan, positions);
      const auto at = [&](const std::vector<float>& v, std::size_t t, index_t i) {
        return static_cast<double>(v[static_cast<std::size_t>(r.row[t] * r.num_pairs + i)]);
      };
      for (index_t i = 0; i < r.num_pairs; ++i) {
        const double cos = at(r.cos, 0, i) * at(r.cos, 1, i) + at(r.sin, 0, i) * at(r.sin, 1, i);
        const double sin = at(r.cos, 0, i) * at(r.sin, 1, i) - at(r.sin, 0, i) * at(r.cos, 1, i);
        CHECK(std::fabs(cos - at(r.cos, 2, i)) < 1.5e-7);
        CHECK(std::fabs(sin - at(r.sin, 2, i)) < 1.5e-7);
      }
    }
  }
}

TEST_CASE("rope/rotary_rows: position 0 does nothing, and interpolation is a change of position") {
  const RotaryRows zero =
      make_rotary_rows(make_frequency_plan(AdjustedBase{}, {.rotary_dim = 32}), Positions{0});
  CHECK(zero.cos == std::vector<float>(16, 1.0f));
  CHECK(zero.sin == std::vector<float>(16, 0.0f));
  // A power of two divides without rounding, so position 8 p of linear:factor=8 is p's bits.
  const FrequencyPlan plain = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 32});
  const FrequencyPlan linear = make_frequency_plan(LinearInterpolation{1e4, 8}, {.rotary_dim = 32});
  const Positions p = {1, 2, 300, 70001}, p8 = {8, 16, 2400, 560008};
  const RotaryRows a = make_rotary_rows(plain, p), b = make_rotary_rows(linear, p8);
  for (std::size_t i = 0; i < a.cos.size(); ++i) {
    CHECK(std::fabs(a.cos[i] - b.cos[i]) < 6e-8f);  // the turns are rounded to 2^-64 each
    CHECK(std::fabs(a.sin[i] - b.sin[i]) < 6e-8f);
  }
}

TEST_CASE("rope/rotary_rows: the float modes have the errors of their models") {
  if (!wide_reference) {
    MESSAGE("skipped: long double is no wider than double here");
    return;
  }
  struct Row {
    std::int64_t last;
    double theta, hf, ggml;
  };
  // Measured with float programs of the two libraries' formulas, 256 positions up to `last`.
  for (const Row& row : {Row{4095, 1e4, 2.39e-4, 5.80e-4}, Row{32767, 1e4, 1.91e-3, 4.92e-3},
                         Row{131071, 1e4, 7.64e-3, 1.97e-2}, Row{1048575, 1e4, 6.17e-2, 1.62e-1},
                         Row{131071, 5e5, 9.29e-3, 1.25e-2}, Row{1048575, 5e5, 7.48e-2, 9.67e-2}}) {
    Positions positions;
    for (std::int64_t i = 0; i < 256; ++i) positions.push_back(row.last - i);
    const FrequencyPlan plan = make_frequency_plan(AdjustedBase{row.theta}, {.rotary_dim = 128});
    const auto error = [&](AnglePrecision precision) {
      return worst_error(make_rotary_rows(plan, positions, precision), positions,
                         [&](index_t i) { return real_power(row.theta, i, 128); });
    };
    CHECK(std::fabs(error(AnglePrecision::hf_float32) / row.hf - 1) < 0.01);
    CHECK(std::fabs(error(AnglePrecision::ggml_float32) / row.ggml - 1) < 0.01);
    CHECK(error(AnglePrecision::exact) < 3.1e-8);
  }
}

TEST_CASE("rope/rotary_rows: the float modes follow scaled frequencies and the attention factor") {
  const FrequencyPlan plan = make_frequency_plan(
      Yarn{.factor = 8, .original_max_position_embeddings = 256}, {.rotary_dim = 64});
  const Positions positions = {0, 1, 100, 2000};
  const RotaryRows exact = make_rotary_rows(plan, positions);
  for (const auto mode : {AnglePrecision::hf_float32, AnglePrecision::ggml_float32}) {
    const RotaryRows rows = make_rotary_rows(plan, positions, mode);
    CHECK(rows.cos != exact.cos);
    for (std::size_t i = 0; i < rows.cos.size(); ++i) {
      CHECK(std::fabs(rows.cos[i] - exact.cos[i]) < 5e-4f);  // the table above at 4096, times 1.2
      CHECK(std::fabs(rows.sin[i] - exact.sin[i]) < 5e-4f);
    }
  }
  // The first pair's angle is the position itself in both.
  const float factor = static_cast<float>(plan.attention_factor);
  const auto row = static_cast<std::size_t>(exact.row[2] * exact.num_pairs);
  CHECK(make_rotary_rows(plan, positions, AnglePrecision::hf_float32).cos[row] ==
        static_cast<float>(std::cos(100.0)) * factor);
}

TEST_CASE("rope/rotary_rows: equal positions share a row, and rows do not depend on the batch") {
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8});
  const Positions packed = {0, 1, 2, 3, 0, 1, 2, 0, 1000000, 3};
  const RotaryRows rows = make_rotary_rows(plan, packed);
  CHECK(rows.num_pairs == 4);
  CHECK(rows.num_rows() == 5);
  CHECK(rows.sin.size() == rows.cos.size());
  REQUIRE(rows.row.size() == packed.size());
  for (std::size_t t = 0; t < packed.size(); ++t) {
    const RotaryRows alone = make_rotary_rows(plan, Positions{packed[t]});
    for (index_t i = 0; i < 4; ++i) {
      const auto at = static_cast<std::size_t>(rows.row[t] * 4 + i);
      CHECK(rows.cos[at] == alone.cos[static_cast<std::size_t>(i)]);
      CHECK(rows.sin[at] == alone.sin[static_cast<std::size_t>(i)]);
    }
    for (std::size_t u = 0; u < t; ++u) {
      CHECK((rows.row[t] == rows.row[u]) == (packed[t] == packed[u]));
    }
  }
}

TEST_CASE(
    "rope/rotary_rows: exact rows are direct angles but for 1e-15, in any order and company") {
  // Widths around the blocks of 16 pairs, positions around the multiples of 32 that rows are made
  // from, and far apart.
  Positions positions;
  for (const std::int64_t near : {0, 32, 64, -32, 4096, 1 << 24, -(1 << 24)}) {
    for (std::int64_t i = -33; i <= 33; ++i) positions.push_back(near + i);
  }
  Positions shuffled = positions;
  for (std::size_t i = shuffled.size(); i-- > 1;) {
    std::swap(shuffled[i], shuffled[(i * 7919) % (i + 1)]);
  }
  for (const index_t pairs : {2, 15, 16, 17, 31, 40, 64, 65}) {
    FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 2 * pairs});
    plan.attention_factor = pairs % 2 == 0 ? 1 : 1.375;
    const RotaryRows rows = make_rotary_rows(plan, positions);
    const RotaryRows others = make_rotary_rows(plan, shuffled);
    for (std::size_t t = 0; t < positions.size(); ++t) {
      const auto row = static_cast<std::size_t>(rows.row[t] * pairs);
      for (std::size_t i = 0; i < plan.turns.size(); ++i) {
        const elementary::SinCos v = elementary::sincos_turns(
            static_cast<std::int64_t>(plan.turns[i] * static_cast<std::uint64_t>(positions[t])));
        const auto near = [&](float x, double direct) {
          const float size = std::fabs(x);
          const double half_ulp = static_cast<double>(std::nextafter(size, 2.0f) - size) / 2;
          return std::fabs(static_cast<double>(x) - direct) <= half_ulp + 1e-15;
        };
        REQUIRE(near(rows.cos[row + i], v.cos * plan.attention_factor));
        REQUIRE(near(rows.sin[row + i], v.sin * plan.attention_factor));
      }
      const auto found = std::find(shuffled.begin(), shuffled.end(), positions[t]);
      const auto other = static_cast<std::size_t>(
          others.row[static_cast<std::size_t>(found - shuffled.begin())] * pairs);
      const RotaryRows alone = make_rotary_rows(plan, Positions{positions[t]});
      for (std::size_t i = 0; i < plan.turns.size(); ++i) {
        REQUIRE(rows.cos[row + i] == alone.cos[i]);
        REQUIRE(rows.sin[row + i] == alone.sin[i]);
        REQUIRE(rows.cos[row + i] == others.cos[other + i]);
        REQUIRE(rows.sin[row + i] == others.sin[other + i]);
      }
    }
  }
}

TEST_CASE("rope/rotary_rows: cleared rows are as new and keep their memory") {
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8});
  const FrequencyPlan wider = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 16});
  RotaryRows rows = make_rotary_rows(plan, Positions{1, 2, 3, 4, 5, 6, 7, 8});
  const float* memory = rows.cos.data();
  rows.clear();
  CHECK(rows.num_rows() == 0);
  append_rotary_rows(rows, wider, Positions{7, 7, 9});
  const RotaryRows fresh = make_rotary_rows(wider, Positions{7, 7, 9});
  CHECK(rows.cos.data() == memory);
  CHECK(rows.num_pairs == 8);
  CHECK(rows.cos == fresh.cos);
  CHECK(rows.sin == fresh.sin);
  CHECK(rows.row == fresh.row);
}

TEST_CASE("rope/rotary_rows: several plans share a batch") {
  const FrequencyPlan a = make_frequency_plan(AdjustedBase{1e4}, {.rotary_dim = 8});
  const FrequencyPlan b = make_frequency_plan(AdjustedBase{5e5}, {.rotary_dim = 8});
  const Positions first = {0, 1, 2}, second = {5, 1};
  RotaryRows rows = make_rotary_rows(a, first);
  append_rotary_rows(rows, b, second);
  CHECK(rows.num_rows() == 5);
  CHECK(rows.row == std::vector<std::int32_t>{0, 1, 2, 3, 4});
  const RotaryRows alone = make_rotary_rows(b, second);
  CHECK(std::equal(alone.cos.begin(), alone.cos.end(), rows.cos.begin() + 12));
  append_rotary_rows(rows, a, Positions{});
  CHECK(rows.num_rows() == 5);
  const FrequencyPlan wider = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 16});
  CHECK(outcome_of([&] { append_rotary_rows(rows, wider, first); }) == "usage");
  CHECK(rows.num_rows() == 5);
  CHECK(outcome_of([&] { append_rotary_rows(rows, FrequencyPlan{}, first); }) == "usage");
}

TEST_CASE("rope/frequency_plan: lowering checks shape, policy and frequencies") {
  const auto outcome = [](index_t d, std::int64_t T) {
    return outcome_of([&] { make_frequency_plan(AdjustedBase{}, {d, T}); });
  };
  CHECK(outcome(64, 0) == "accepted");
  CHECK(outcome(0, 0) == "usage");
  CHECK(outcome(-2, 0) == "usage");
  CHECK(outcome(63, 0) == "usage");
  CHECK(outcome(64, -1) == "usage");
  CHECK(outcome_of([] { make_frequency_plan(AdjustedBase{1}, {.rotary_dim = 8}); }) == "config");
  FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 8});
  for (const double bad : {-1.0, std::nan(""), 1e300}) {
    FrequencyPlan broken = plan;
    broken.inv_freq[2] = bad;
    const ErrorInfo error = error_of([&] { seal(broken); });
    CHECK(error.kind == ErrorClass::numeric);
    CHECK(error.field == "inv_freq[2]");
  }
  FrequencyPlan broken = plan;
  broken.attention_factor = std::nan("");
  CHECK(error_of([&] { seal(broken); }).kind == ErrorClass::numeric);
}

TEST_CASE("rope/frequency_plan: the hash is of what runs, and the same on every machine") {
  const auto hash = [](const char* spec, index_t d) {
    const FrequencyPlan plan =
        make_frequency_plan(parse_rope(spec, {1e4, 4096}), {.rotary_dim = d, .seq_len = 4096});
    return hash_text(plan.rope_hash);
  };
  CHECK(hash("default", 128) == "b90a34e41699322d");
  CHECK(hash("ntk:factor=8", 128) == "364dc64423eda824");
  CHECK(hash("default", 64) != hash("default", 128));
  CHECK(hash("linear:factor=1", 128) == hash("default", 128));
  CHECK(hash("dynamic:factor=8", 128) == hash("default", 128));
  // The magnitude is part of what runs.
  CHECK(hash("yarn_paper:factor=8", 128) != hash("yarn_paper:factor=8,attention_factor=1", 128));
}

}  // namespace ropewalk
