// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What attend() must do for floats and for bf16 alike; a file of tests for each.

#include <algorithm>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"

#include "attention/attend_problem.hpp"
#include "support/arches.hpp"

namespace ropewalk {

/// A problem's first `count` queries and the keys up to theirs.
inline Problem prefix_of(const Problem& p, index_t count) {
  Problem q = p;
  const index_t past = p.keys - p.queries;
  q.queries = count;
  q.keys = past + count;
  q.q.resize(static_cast<std::size_t>(count * p.heads * p.head_dim));
  return q;
}

/// Queries [begin, end) alone, the keys before them kept.
inline Problem chunk_of(const Problem& p, index_t begin, index_t end) {
  Problem q = prefix_of(p, end);
  q.queries = end - begin;
  q.q.erase(q.q.begin(), q.q.begin() + begin * p.heads * p.head_dim);
  return q;
}

/// Rows [begin, end) of a result over `queries` rows.
inline Result rows_of(const Result& r, index_t queries, index_t begin, index_t end) {
  Result out;
  const auto row = static_cast<index_t>(r.out.size()) / queries;
  const auto heads = static_cast<index_t>(r.lse.size()) / queries;
  out.out.assign(r.out.begin() + begin * row, r.out.begin() + end * row);
  for (index_t h = 0; h < heads; ++h) {
    const auto of_head = r.lse.begin() + h * queries;
    out.lse.insert(out.lse.end(), of_head + begin, of_head + end);
  }
  return out;
}

template <class T, class Sums, class Mask>
void check(const Problem& p, const Mask& mask) {
  const BlockPlan plan = make_block_plan(mask, p.queries, {}, p.keys - p.queries);
  const Expected<T> expected(p, [&](index_t i, index_t j) { return mask.visible(i, j); });
  const Result first = attend_all<typename Sums::Reference, T>(p, plan);
  CHECK(expected.misses(first) == 0);
  for_each_arch<Sums>([&]<class Arch>() {
    CHECK(attend_all<Arch, T>(p, plan, {.in_place = true, .backwards = true}) == first);
    CHECK(attend_all<Arch, T>(p, plan, {.together = 3}) == first);
  });
}

/// Half the diagonal band and every third key before: rows that are no intervals.
struct Comb {
  bool visible(index_t i, index_t j) const { return j <= i && (i - j <= 1 || j % 3 == 0); }
};
/// Nobody sees key 0, and two whole row tiles of queries see nothing.
struct Holes {
  bool visible(index_t i, index_t j) const { return j <= i && j != 0 && (i < 12 || i >= 25); }
};

template <class T, class Sums = SumsOfPairs>
void check_sizes() {
  constexpr index_t pasts[] = {0, 1, 37, 63, 64, 101};
  std::size_t n = 0;
  for (const index_t d : {8, 16, 34, 40, 64, 80, 96, 128, 160, 256}) {
    for (index_t queries = 0; queries <= 13; ++queries) {
      if (d > 96 && queries % 3 != 1) continue;
      const index_t past = pasts[n++ % std::size(pasts)];
      CAPTURE(d);
      CAPTURE(queries);
      CAPTURE(past);
      check<T, Sums>(Problem(queries, queries + past, 2, 1, d), Causal{});
    }
  }
  // A query block and one row more, and key blocks to their last key and one more.
  check<T, Sums>(Problem(97, 97, 1, 1, 16), Causal{});
  for (const index_t keys : {511, 512, 513, 1025})
    check<T, Sums>(Problem(7, keys, 1, 1, 16), Causal{});
}

template <class T, class Sums = SumsOfPairs>
void check_decode() {
  for (const index_t ratio : {1, 2, 3, 4, 5, 6, 7, 8}) {
    for (const index_t keys : {index_t{1}, index_t{71}, 514 + ratio}) {
      CAPTURE(ratio);
      CAPTURE(keys);
      check<T, Sums>(Problem(1, keys, 2 * ratio, 2, ratio % 2 == 0 ? 64 : 34), Causal{});
    }
  }
}

template <class T, class Sums = SumsOfPairs>
void check_masks() {
  const Problem p(139, 139, 2, 1, 24), long_one(45, 560, 1, 1, 16);
  const std::vector<std::int32_t> documents = {0, 1, 4, 67, 68, 131, 139};
  const CausalDocuments packed(documents);
  check<T, Sums>(p, Full{});
  check<T, Sums>(p, packed);
  for (const index_t window : {1, 2, 17, 70}) {
    CAPTURE(window);
    check<T, Sums>(p, SlidingWindow(window));
    check<T, Sums>(long_one, SlidingWindow(window));
  }
  check<T, Sums>(p, Intersection{packed, SlidingWindow(9)});
  check<T, Sums>(p, Comb{});
  check<T, Sums>(p, Holes{});
  check<T, Sums>(long_one, Comb{});
  check<T, Sums>(long_one, Intersection{Comb{}, SlidingWindow(30)});
}

template <class Arch, class T, class Sums>
void check_bits_of() {
  const Problem p(623, 623, 2, 1, 24);
  const auto run = [](const Problem& q, const auto& mask, const AttendSetting& setting = {}) {
    const BlockPlan plan = make_block_plan(mask, q.queries, {}, q.keys - q.queries);
    return attend_all<Arch, T>(q, plan, setting);
  };
  const Result whole = run(p, Causal{});
  for (const int workers : {2, 3}) {
    ThreadPool pool(workers);
    CHECK(run(p, Causal{}, {.executor = pool.executor()}) == whole);
  }
  for (const index_t together : {2, 4, 7}) {
    CHECK(run(p, Causal{}, {.in_place = true, .together = together}) == whole);
  }
  const BlockPlan plan = make_block_plan(Causal{}, p.queries);
  for_each_arch<Sums>([&]<class Other>() { CHECK(attend_all<Other, T>(p, plan) == whole); });
  for (const index_t count : {1, 2, 5, 6, 97, 511, 512, 513, 600}) {
    CAPTURE(count);
    CHECK(run(prefix_of(p, count), Causal{}) == rows_of(whole, 623, 0, count));
    CHECK(run(chunk_of(p, count, count + 1), Causal{}) == rows_of(whole, 623, count, count + 1));
    const index_t end = std::min<index_t>(count + 9, 623);
    CHECK(run(chunk_of(p, count, end), Causal{}) == rows_of(whole, 623, count, end));
  }
  const std::vector<std::int32_t> documents = {0, 5, 70, 71, 600, 623};
  const Result packed = run(p, CausalDocuments(documents));
  for (std::size_t i = 0; i + 1 < documents.size(); ++i) {
    const index_t begin = documents[i], length = documents[i + 1] - begin, d = p.head_dim;
    Problem alone(length, length, 2, 1, d);
    const auto cut = [&](std::vector<float>& to, const std::vector<float>& x, index_t row) {
      to.assign(x.begin() + begin * row, x.begin() + (begin + length) * row);
    };
    cut(alone.q, p.q, 2 * d), cut(alone.k, p.k, d), cut(alone.v, p.v, d);
    CAPTURE(i);
    CHECK(run(alone, Causal{}) == rows_of(packed, 623, begin, begin + length));
  }
}
template <class T, class Sums = SumsOfPairs>
void check_bits() {
  with_fastest_arch<Sums>([]<class Arch>() { check_bits_of<Arch, T, Sums>(); });
}

/// The rows of `after` that differ from `before`.
inline std::vector<index_t> changed_rows(const Result& before, const Result& after,
                                         index_t queries) {
  std::vector<index_t> rows;
  for (index_t t = 0; t < queries; ++t) {
    if (rows_of(before, queries, t, t + 1) != rows_of(after, queries, t, t + 1)) rows.push_back(t);
  }
  return rows;
}

template <class T, class Sums = SumsOfPairs>
void check_not_finite() {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const Problem p(41, 58, 1, 1, 16);  // query 0 sees keys 0 .. 17
  const BlockPlan plan = make_block_plan(Causal{}, p.queries, {}, p.keys - p.queries);
  for_each_arch<Sums>([&]<class Arch>() {
    constexpr index_t tile = detail::most_tile_rows<Arch, T>;
    constexpr index_t group = simd::takes_matrix_tiles<Arch, T> ? simd::tile_depth : depth_group<T>;
    const Result before = attend_all<Arch, T>(p, plan);
    for (const index_t key : {19, 20, 34, 41, 57}) {
      CAPTURE(key);
      const index_t seeing = key - 17;  // the first query that sees the key
      Problem broken = p;
      broken.v[static_cast<std::size_t>(key * 16 + 3)] = nan;
      const Result values = attend_all<Arch, T>(broken, plan);
      // A weight of zero does not hide NaN: rows beside one that sees it in a tile may have it, and
      // of bf16 the tile before, when its last key is in the same pair or group of pairs.
      const index_t begin = key / group * group;
      const index_t first = std::max<index_t>(begin - 17, 0) / tile * tile;
      for (index_t t = 0; t < 41; ++t) {
        const auto at = static_cast<std::size_t>(t * 16);
        if (t >= seeing) CHECK(std::isnan(values.out[at + 3]));
        if (t < first) CHECK(values.out[at + 3] == before.out[at + 3]);
        CHECK(values.out[at + 4] == before.out[at + 4]);  // other channels never
      }
      CHECK(values.lse == before.lse);
      broken = p;
      broken.k[static_cast<std::size_t>(key * 16 + 3)] = nan;
      const Result keys = attend_all<Arch, T>(broken, plan);
      for (index_t t = 0; t < 41; ++t) {
        const auto at = static_cast<std::size_t>(t);
        CHECK(std::isnan(keys.lse[at]) == (t >= seeing));
        CHECK(std::isnan(keys.out[at * 16 + 7]) == (t >= seeing));
        if (t < seeing) CHECK(rows_of(keys, 41, t, t + 1) == rows_of(before, 41, t, t + 1));
      }
      broken = p;
      broken.q[static_cast<std::size_t>(seeing * 16)] = nan;
      const Result queries = attend_all<Arch, T>(broken, plan);
      CHECK(changed_rows(before, queries, 41) == std::vector<index_t>{seeing});
      CHECK(std::isnan(queries.lse[static_cast<std::size_t>(seeing)]));
      CHECK(std::isnan(queries.out[static_cast<std::size_t>(seeing * 16 + 15)]));
      broken.q[static_cast<std::size_t>(seeing * 16)] = std::numeric_limits<float>::infinity();
      const Result infinite = attend_all<Arch, T>(broken, plan);
      CHECK(changed_rows(before, infinite, 41) == std::vector<index_t>{seeing});
      CHECK(std::isnan(infinite.lse[static_cast<std::size_t>(seeing)]));
    }
  });
}

}  // namespace ropewalk
