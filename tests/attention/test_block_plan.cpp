// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/masks.hpp"
#include "ropewalk/attention/softmax_state.hpp"
#include "ropewalk/core/rng.hpp"

#include "support/random.hpp"

using namespace ropewalk;

namespace {

struct OddKeys {
  bool visible(index_t i, index_t j) const { return j <= i && (i + j) % 2 == 0; }
};

/// A plan says of every pair of the batch exactly what the mask says within the segments.
template <class Mask>
void check_plan(const BlockPlan& plan, const Mask& mask, index_t n, index_t past) {
  std::vector<int> seen(static_cast<std::size_t>(n * (n + past)));
  std::vector<int> covered(static_cast<std::size_t>(n));
  for (const QueryBlock& block : plan.query_blocks) {
    const Segment& s = plan.segments[static_cast<std::size_t>(block.segment)];
    REQUIRE(s.key_base % key_panel == 0);
    index_t last_key = 0;
    for (index_t row = block.queries.begin; row < block.queries.end; ++row) {
      ++covered[static_cast<std::size_t>(row)];
    }
    for (index_t r = block.ranges.begin; r < block.ranges.end; ++r) {
      const KeyRange& range = plan.ranges[static_cast<std::size_t>(r)];
      REQUIRE(range.keys.begin % key_block == 0);
      REQUIRE(range.keys.begin >= last_key);
      REQUIRE(range.keys.end <= s.num_keys());
      last_key = range.keys.end;
      for (index_t row = block.queries.begin; row < block.queries.end; ++row) {
        for (index_t j = range.keys.begin; j < range.keys.end; ++j) {
          bool visible = true;
          if (range.cover == KeyRange::Cover::intervals) {
            const Interval keys = plan.row_keys[static_cast<std::size_t>(row)];
            visible = keys.begin <= j && j < keys.end;
          } else if (range.cover == KeyRange::Cover::bits) {
            const index_t word = range.bits + (row - block.queries.begin) * (key_block / 64) +
                                 (j - range.keys.begin) / 64;
            visible =
                plan.bits[static_cast<std::size_t>(word)] >> ((j - range.keys.begin) % 64) & 1u;
          }
          if (visible) ++seen[static_cast<std::size_t>(row * (n + past) + s.queries.begin + j)];
        }
      }
    }
  }
  for (const int c : covered) REQUIRE(c == 1);
  for (const Segment& s : plan.segments) {
    for (index_t row = s.queries.begin; row < s.queries.end; ++row) {
      for (index_t j = 0; j < n + past; ++j) {
        const bool inside = j >= s.queries.begin && j < s.queries.begin + s.num_keys();
        const int want = inside && mask.visible(row + past, j) ? 1 : 0;
        REQUIRE(seen[static_cast<std::size_t>(row * (n + past) + j)] == want);
      }
    }
  }
}

}  // namespace

TEST_CASE("attention/block_plan: a plan shows exactly the pairs that its mask shows") {
  const std::vector<std::int32_t> documents = {0, 1, 90, 90, 640};
  for (const index_t n : {1, 64, 97, 640}) {
    for (const index_t past : {0, 1, 510, 600}) {  // 510: all rows but the first see a whole block
      check_plan(make_block_plan(Causal{}, n, {}, past), Causal{}, n, past);
      check_plan(make_block_plan(Full{}, n, {}, past), Full{}, n, past);
      check_plan(make_block_plan(SlidingWindow(33), n, {}, past), SlidingWindow(33), n, past);
      check_plan(make_block_plan(OddKeys{}, n, {}, past), OddKeys{}, n, past);
    }
  }
  const CausalDocuments mask(documents);
  check_plan(make_block_plan(mask, 640), mask, 640, 0);
  check_plan(make_block_plan(OddKeys{}, 640, documents), OddKeys{}, 640, 0);
}

TEST_CASE("attention/block_plan: slots are distinct and segments start on fresh panels") {
  const std::vector<std::int32_t> documents = {0, 1, 90, 91, 640};
  const BlockPlan plan = make_block_plan(Causal{}, 640, documents);
  std::vector<int> used(static_cast<std::size_t>(plan.key_slots));
  for (const index_t slot : plan.key_slot) ++used.at(static_cast<std::size_t>(slot));
  for (const int u : used) CHECK(u <= 1);
  CHECK(plan.key_slot[1] == 64);
  CHECK(plan.key_slot[90] == 64 + 128);
}

TEST_CASE("attention/block_plan: its size grows with the tokens, not with their square") {
  const auto bytes = [](const BlockPlan& p) {
    return p.ranges.size() * sizeof(KeyRange) + p.row_keys.size() * sizeof(Interval) +
           p.key_slot.size() * sizeof(index_t) + p.query_blocks.size() * sizeof(QueryBlock);
  };
  const std::size_t small = bytes(make_block_plan(Causal{}, 9600));
  const std::size_t large = bytes(make_block_plan(Causal{}, 96000));
  CHECK(large <= 10 * small + 4096);  // one query block of slack
}

TEST_CASE("attention/block_plan: offsets that do not fit are refused") {
  const std::vector<std::int32_t> documents = {0, 5, 9};
  CHECK_THROWS_AS(make_block_plan(Causal{}, 10, documents), Error);
  CHECK_THROWS_AS(make_block_plan(CausalDocuments(documents), 10), Error);
  CHECK_THROWS_AS(make_block_plan(Causal{}, 9, documents, 3), Error);
}

TEST_CASE("attention/softmax_state: pieces merge into the bits of one pass, in order") {
  const auto scores = normal_floats(400, 1, 30);
  const auto weigh = [&](std::size_t begin, std::size_t end) {
    SoftmaxState state;
    for (std::size_t i = begin; i < end; i += 8) {  // blocks of 8 scores
      float largest = scores[i];
      for (std::size_t j = i; j < i + 8; ++j) largest = std::fmax(largest, scores[j]);
      state.raise(largest);
      double sum = 0;
      for (std::size_t j = i; j < i + 8; ++j) {
        // An exact power of two apart for any reference, as exp2_from is.
        sum += std::ldexp(static_cast<double>(static_cast<float>(std::exp2(
                              static_cast<double>(scores[j] - std::nearbyint(scores[j]))))),
                          static_cast<int>(std::nearbyint(scores[j])) - state.reference);
      }
      state.sum += sum;
    }
    return state;
  };
  const SoftmaxState whole = weigh(0, 400);
  for (const std::size_t cut : {8u, 80u, 200u, 392u}) {
    SoftmaxState a = weigh(0, cut);
    merge(a, weigh(cut, 400));
    CHECK(a.reference == whole.reference);
    // Sums of blocks are added in another grouping: double rounding, 50 additions.
    CHECK(a.sum == doctest::Approx(whole.sum).epsilon(50 * 0x1p-53));
    CHECK(a.lse() == doctest::Approx(whole.lse()).epsilon(1e-14));
  }
  SoftmaxState nothing;
  CHECK(nothing.lse() == -std::numeric_limits<double>::infinity());
  const MergeFactors f = merge(nothing, whole);
  CHECK(f.a == 0.0f);
  CHECK(f.b == 1.0f);
  CHECK(nothing.sum == whole.sum);
  SoftmaxState same = whole;
  merge(same, SoftmaxState{});
  CHECK(same.sum == whole.sum);
}

TEST_CASE("attention/softmax_state: lse as a float is the rounded one, also where that is close") {
  const auto check = [](std::int32_t reference, double sum) {
    const SoftmaxState state{reference, sum};
    CAPTURE(reference);
    CAPTURE(sum);
    REQUIRE(std::bit_cast<std::uint32_t>(state.rounded_lse()) ==
            std::bit_cast<std::uint32_t>(static_cast<float>(state.lse())));
  };
  const ropewalk::Random random{.seed = 4};
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const auto reference = static_cast<std::int32_t>(2 * std::floor(60 * random.uniform(i)) - 60);
    const double sum = std::exp2(20 * random.uniform(i + 100000) - 4);
    check(reference, sum);
    // Beside the point where rounding turns: e^(a float and a half of its last place).
    const float value = SoftmaxState{reference, sum}.rounded_lse();
    const double next = static_cast<double>(std::nextafter(value, 1e9f));
    const double turn = (static_cast<double>(value) + next) / 2;
    const double there = std::exp(turn - reference * ln_2);
    for (const double step : {-1e-12, -1e-13, -1e-15, 0.0, 1e-15, 1e-13, 1e-12}) {
      check(reference, there * (1 + step));
    }
    check(0, 1 + (random.uniform(i + 200000) - 0.5) * std::exp2(-static_cast<double>(i % 52)));
  }
  for (const double sum : {0.0, 1.0, 0x1p-1074, 0x1p-1010, 0x1.8p1010, -1.0,
                           std::numeric_limits<double>::infinity()}) {
    check(0, sum);
    check(8, sum);
  }
  CHECK(std::isnan(SoftmaxState{2, std::numeric_limits<double>::quiet_NaN()}.rounded_lse()));
  CHECK(SoftmaxState{}.rounded_lse() == -std::numeric_limits<float>::infinity());
}

TEST_CASE("attention/softmax_state: finished pieces merge to the mean over both") {
  float a[2] = {1, 2};
  const float b[2] = {5, -2};
  double lse = std::log(3.0);
  merge_finished(a, lse, b, std::log(1.0), 2);
  CHECK(a[0] == doctest::Approx(2.0));
  CHECK(a[1] == doctest::Approx(1.0));
  CHECK(lse == doctest::Approx(std::log(4.0)));
  const double before = lse;
  merge_finished(a, lse, b, -std::numeric_limits<double>::infinity(), 2);
  CHECK(lse == before);
  float empty[2] = {0, 0};
  double nothing = -std::numeric_limits<double>::infinity();
  merge_finished(empty, nothing, b, 0.5, 2);
  CHECK(empty[0] == 5.0f);
  CHECK(nothing == doctest::Approx(0.5));
}
