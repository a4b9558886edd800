// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// attend() on operands of T in memory that is hostile where nothing was stored, and the formula in
/// double on the same rounded operands.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ropewalk/attention/blockwise.hpp"
#include "ropewalk/core/executor.hpp"

#include "attention/attention_problem.hpp"

namespace ropewalk {

/// Scale of queries: scores are in units of ln 2.
inline float query_scale(const Problem& p) {
  return static_cast<float>(log2_e / std::sqrt(static_cast<double>(p.head_dim)));
}

template <class T>
std::vector<T> stored_queries(const Problem& p) {
  std::vector<T> out(p.q.size());
  const float scale = query_scale(p);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = simd::rounded_to<T>(p.q[i] * scale);
  return out;
}

/// Panels of all keys of a problem. Memory that no token was stored in is NaN, but for what
/// end_values() clears.
template <class T>
struct StoredPanels {
  Buffer<T> keys, values;
  KeyValuePanels<T> panels;

  StoredPanels(const Problem& p, const BlockPlan& plan)
      : keys(KeyValuePanels<T>::keys_size(plan.key_slots, p.key_heads, p.head_dim)),
        values(KeyValuePanels<T>::values_size(plan.key_slots, p.key_heads, p.head_dim)),
        panels{keys.data(), values.data(), plan.key_slots, p.key_heads, p.head_dim} {
    const T nan = simd::rounded_to<T>(std::numeric_limits<float>::quiet_NaN());
    for (T& x : keys.span()) x = nan;
    for (T& x : values.span()) x = nan;
    const index_t past = p.keys - p.queries;
    const index_t row = p.key_heads * p.head_dim;
    for (index_t h = 0; h < p.key_heads && plan.key_slots > 0; ++h) {  // no queries: no slots
      for (index_t t = 0; t < p.keys; ++t) {
        const index_t slot = t < past ? t : plan.key_slot[static_cast<std::size_t>(t - past)];
        panels.store_key(h, slot, p.k.data() + t * row + h * p.head_dim);
        panels.store_value(h, slot, p.v.data() + t * row + h * p.head_dim);
      }
      for (const Segment& s : plan.segments) panels.end_values(h, s.key_base + s.num_keys());
    }
  }
};

struct AttendSetting {
  bool in_place = false;   ///< the output is the queries' memory
  bool backwards = false;  ///< tasks from the last to the first
  index_t together = 1;    ///< query blocks of a task
  Executor executor = {};
};

/// All tasks of a plan.
template <class Arch, class T>
Result attend_all(const Problem& p, const BlockPlan& plan, const AttendSetting& setting = {}) {
  const StoredPanels<T> stored(p, plan);
  std::vector<T> queries = stored_queries<T>(p), separate(queries.size());
  Result r{std::vector<float>(queries.size()),
           std::vector<float>(static_cast<std::size_t>(p.heads * p.queries), -9.0f)};
  const std::array<index_t, 3> shape{p.queries, p.heads, p.head_dim};
  const AttentionBranch<T> branch{{queries.data(), shape}, stored.panels};
  T* out = setting.in_place ? queries.data() : separate.data();
  const AttentionCall<T> call{
      {&branch, 1}, &plan, {out, shape}, {r.lse.data(), {p.heads, p.queries}}};
  const index_t size = attention_scratch_size<T>(p.head_dim);
  Buffer<float> scratch(setting.executor.workers() * size);
  for (float& x : scratch.span()) x = std::numeric_limits<float>::quiet_NaN();
  const auto blocks = static_cast<index_t>(plan.query_blocks.size());
  const index_t tasks = (blocks + setting.together - 1) / setting.together * p.key_heads;
  for_each_dealt(setting.executor, tasks, [&](index_t i, index_t worker) {
    const index_t task = setting.backwards ? tasks - 1 - i : i;
    const index_t first = task / p.key_heads * setting.together;
    attend<Arch>(call, {{first, std::min(first + setting.together, blocks)}, task % p.key_heads},
                 scratch.data() + worker * size);
  });
  for (std::size_t i = 0; i < r.out.size(); ++i) r.out[i] = to_float(out[i]);
  return r;
}

using Visible = std::function<bool(index_t, index_t)>;  ///< (absolute query, key)

/// softmax(q k^T) v in double of operands rounded to T, and how far from it attend() may be.
///
/// float: the documented 2e-6 of the largest |v|, and 5e-7 of max(1, |lse|).
///
/// bf16: weight j is off by at most e_j relative: 2^-8 of its rounding, 1.45e-4 of the exponential,
/// and ln 2 times the error of its score's chain of D terms. Weights divide by their own sum, so
/// the mean moves by sum w_j e_j |v_j - mean| / (1 - e); it is rounded to bf16 last: 2^-8. To it
/// come the float's 2e-6 for sums.
template <class T>
struct Expected {
  std::vector<double> out, out_bound, lse, lse_bound;

  Expected(const Problem& p, const Visible& visible) {
    constexpr bool is_float = std::is_same_v<T, float>;
    const auto q = stored_queries<T>(p);
    const index_t past = p.keys - p.queries, d = p.head_dim, row = p.key_heads * d;
    const auto value_of = [](float x) {
      return static_cast<double>(to_float(simd::rounded_to<T>(x)));
    };
    std::vector<double> k(p.k.size()), v(p.v.size());
    double largest_v = 0;
    for (std::size_t i = 0; i < k.size(); ++i) {
      k[i] = value_of(p.k[i]);
      v[i] = value_of(p.v[i]);
      largest_v = std::fmax(largest_v, std::fabs(v[i]));
    }
    out.resize(q.size());
    out_bound.resize(q.size());
    lse.resize(static_cast<std::size_t>(p.heads * p.queries));
    lse_bound.resize(lse.size());
    std::vector<double> w(static_cast<std::size_t>(p.keys)), e(w.size());
    for (index_t t = 0; t < p.queries; ++t) {
      for (index_t h = 0; h < p.heads; ++h) {
        const index_t offset = h / (p.heads / p.key_heads) * d;
        const T* query = q.data() + (t * p.heads + h) * d;
        double largest = -std::numeric_limits<double>::infinity(), worst = 0, sum = 0;
        for (index_t j = 0; j < p.keys; ++j) {
          const auto at = static_cast<std::size_t>(j);
          if (!visible(past + t, j)) continue;
          double score = 0, magnitude = 0;
          for (index_t c = 0; c < d; ++c) {
            const double x = static_cast<double>(to_float(query[c])) *
                             k[static_cast<std::size_t>(j * row + offset + c)];
            score += x;
            magnitude += std::fabs(x);
          }
          w[at] = score;
          e[at] = 0x1p-8 + 1.45e-4 + 0.7 * static_cast<double>(d) * 0x1p-24 * magnitude;
          worst = std::fmax(worst, e[at]);
          largest = std::fmax(largest, score);
        }
        for (index_t j = 0; j < p.keys; ++j) {
          const auto at = static_cast<std::size_t>(j);
          w[at] = visible(past + t, j) ? std::exp2(w[at] - largest) : 0;
          sum += w[at];
        }
        const auto at_lse = static_cast<std::size_t>(h * p.queries + t);
        lse[at_lse] = std::log(sum) + largest * ln_2;
        const double unit = std::fmax(1, std::fabs(lse[at_lse]));
        lse_bound[at_lse] = is_float ? 5e-7 * unit : 1.01 * worst + 0x1p-24 * unit;
        for (index_t c = 0; c < d; ++c) {
          const auto at = static_cast<std::size_t>((t * p.heads + h) * d + c);
          const auto v_at = [&](index_t j) {
            return v[static_cast<std::size_t>(j * row + offset + c)];
          };
          double mean = 0, moved = 0;
          for (index_t j = 0; j < p.keys; ++j) mean += w[static_cast<std::size_t>(j)] * v_at(j);
          mean = sum > 0 ? mean / sum : 0;
          for (index_t j = 0; j < p.keys; ++j) {
            const auto i = static_cast<std::size_t>(j);
            moved += w[i] * e[i] * std::fabs(v_at(j) - mean);
          }
          out[at] = mean;
          out_bound[at] = 2e-6 * largest_v;
          if (!is_float && sum > 0) {
            out_bound[at] += moved / sum / (1 - worst);
            out_bound[at] += 0x1.01p-8 * (std::fabs(mean) + out_bound[at]);
          }
        }
      }
    }
  }

  /// Elements of r that are too far off, or NaN.
  std::size_t misses(const Result& r) const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      count += !(std::fabs(static_cast<double>(r.out[i]) - out[i]) <= out_bound[i]);
    }
    for (std::size_t i = 0; i < lse.size(); ++i) {
      const auto got = static_cast<double>(r.lse[i]);
      count += !(std::isinf(lse[i]) ? got == lse[i] : std::fabs(got - lse[i]) <= lse_bound[i]);
    }
    return count;
  }
};

}  // namespace ropewalk
