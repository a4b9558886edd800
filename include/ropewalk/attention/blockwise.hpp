// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Blockwise attention with online softmax, over a BlockPlan and key/value panels.

#include <cmath>
#include <limits>
#include <span>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/panels.hpp"
#include "ropewalk/attention/softmax_row.hpp"
#include "ropewalk/linalg/tile.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Queries and keys under one rotation; plain RoPE has one branch, position remapping several.
template <class T>
struct AttentionBranch {
  TensorView<const T, 3>
      queries;               ///< (tokens, H, D), times softmax_scale * log2(e); for bf16 D even
  KeyValuePanels<T> panels;  ///< values are read from branch 0
};

/// What attend() reads and writes; the same for all tasks of a layer.
template <class T>
struct AttentionCall {
  std::span<const AttentionBranch<T>> branches;
  const BlockPlan* plan = nullptr;
  TensorView<T, 3> output;   ///< (tokens, H, D); may be the queries' memory of a single branch
  TensorView<float, 2> lse;  ///< (H, tokens), natural log; or empty
};

namespace detail {

/// Rows of the score tile, which stays in the L1 cache from the scores to their last use.
inline constexpr index_t score_rows = 6;

/// Floats of what attend() keeps per worker: outputs of a query block, scores of a row tile; for
/// bf16 also room for what is widened where there is no dot product of pairs.
struct AttentionScratch {
  index_t head_dim;

  index_t padded() const { return round_up(head_dim, lane_count); }
  index_t outputs() const { return query_block * padded(); }
  index_t scores() const { return score_rows * score_stride; }
  index_t wide_queries() const { return query_block * padded(); }
  index_t wide_block() const { return key_block * padded(); }
};

}  // namespace detail

/// Floats of scratch that attend() needs per worker.
template <class T>
index_t attention_scratch_size(index_t head_dim) {
  const detail::AttentionScratch s{head_dim};
  const index_t wide = std::is_same_v<T, bf16> ? s.wide_queries() + 2 * s.wide_block() : 0;
  return s.outputs() + s.scores() + wide;
}

namespace detail {

/// Rows that attend together: queries of one head, or one query of several heads.
template <class T>
struct AttentionRows {
  const AttentionCall<T>& call;
  const QueryBlock& task;
  index_t first_head;
  index_t count;
  bool heads_are_rows;

  index_t token(index_t row) const { return task.queries.begin + (heads_are_rows ? 0 : row); }
  index_t head(index_t row) const { return first_head + (heads_are_rows ? row : 0); }
};

/// Columns of the block [block.begin, block.end) of the segment that a token sees; in a range of
/// bits the whole block.
inline Interval visible_columns(const BlockPlan& plan, const KeyRange& range, Interval block,
                                index_t token) {
  if (range.cover != KeyRange::Cover::intervals) return {0, block.size()};
  const Interval keys = plan.row_keys[static_cast<std::size_t>(token)];
  const Interval columns{std::max<index_t>(keys.begin - block.begin, 0),
                         std::min(keys.end - block.begin, block.size())};
  return columns.empty() ? Interval{} : columns;
}

/// Sets what lies in the whole vectors around `columns` and is not visible to -inf.
template <class Arch>
VisibleColumns mask_row(const BlockPlan& plan, const KeyRange& range, Interval columns,
                        index_t row_of_block, float* scores) {
  using V = simd::Floats<Arch>;
  constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
  if (columns.empty()) return {};
  const V invisible(minus_infinity);
  const Interval hull{columns.begin / lane_count * lane_count, round_up(columns.end, lane_count)};
  VisibleColumns visible{hull, hull};
  if (columns.begin != hull.begin) {
    V::select_first(columns.begin - hull.begin, invisible, V::load(scores + hull.begin))
        .store(scores + hull.begin);
    visible.clear.begin += lane_count;
  }
  if (columns.end != hull.end) {
    float* last = scores + hull.end - lane_count;
    V::select_first(columns.end - (hull.end - lane_count), V::load(last), invisible).store(last);
    visible.clear.end -= lane_count;
  }
  if (range.cover != KeyRange::Cover::bits) return visible;
  const std::uint64_t* word = plan.bits.data() + range.bits + row_of_block * (key_block / 64);
  bool any = false;
  for (index_t c = columns.begin; c < columns.end; ++c) {
    const bool seen = word[c / 64] >> (c % 64) & 1u;
    if (!seen) scores[c] = minus_infinity;
    any = any || seen;
  }
  return any ? VisibleColumns{hull, {}} : VisibleColumns{};
}

/// Scores of a row tile with the keys of one block, columns [columns.begin, columns.end):
/// multiples of 64 and of 16. keys: the block's panels.
template <class Arch, class E, std::size_t Rows>
[[gnu::noinline]] void score_tile(const E* queries, index_t query_stride, const E* keys,
                                  index_t depth, Interval columns, float* scores) noexcept {
  constexpr std::size_t most = GemmTile<Arch>::vectors;
  const auto multiply = [&]<std::size_t Vectors>(index_t c,
                                                 std::integral_constant<std::size_t, Vectors>) {
    Accumulators<Arch, Rows, Vectors> acc;
    acc.clear();
    const E* panel =
        keys + c / panel_width * panel_width * depth + c % panel_width * depth_group<E>;
    multiply_tile<Arch, E>(queries, query_stride, panel, panel_width, depth, nullptr, acc);
    acc.store(scores + c, score_stride);
  };
  index_t c = columns.begin;
  while (c + column_of(most) <= columns.end) {
    multiply(c, std::integral_constant<std::size_t, most>{});
    c += column_of(most);
  }
  if constexpr (most > 2) {
    if (c + column_of(2) <= columns.end) {
      multiply(c, std::integral_constant<std::size_t, 2>{});
      c += column_of(2);
    }
  }
  for (; c < columns.end; c += column_of(1)) {
    multiply(c, std::integral_constant<std::size_t, 1>{});
  }
}

/// output = fma(output, factor of the row, weights x values) for one panel of channels.
/// values: (depth, width).
template <class Arch, class E, std::size_t Rows>
[[gnu::noinline]] void add_values_tile(const E* weights, index_t weight_stride, const E* values,
                                       index_t width, index_t depth, const float* factor,
                                       float* output, index_t output_stride) noexcept {
  using V = simd::Floats<Arch>;
  constexpr std::size_t most = GemmTile<Arch>::vectors;
  const auto multiply = [&]<std::size_t Vectors>(index_t c,
                                                 std::integral_constant<std::size_t, Vectors>) {
    Accumulators<Arch, Rows, Vectors> acc;
    acc.clear();
    multiply_tile<Arch, E>(weights, weight_stride, values + c * depth_group<E>, width, depth,
                           nullptr, acc);
    ROPEWALK_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
      float* row = output + static_cast<index_t>(r) * output_stride + c;
      const V scale(factor[r]);
      ROPEWALK_UNROLL
      for (std::size_t v = 0; v < Vectors; ++v) {
        float* o = row + column_of(v);
        fma(V::load(o), scale, acc.sum[r][v]).store(o);
      }
    }
  };
  index_t c = 0;
  for (; c + column_of(most) <= width; c += column_of(most)) {
    multiply(c, std::integral_constant<std::size_t, most>{});
  }
  for (; c < width; c += column_of(1)) multiply(c, std::integral_constant<std::size_t, 1>{});
}

/// Masks and weighs the scores of a row tile, and moves its rows' softmax states on.
template <class Arch, class T>
[[gnu::noinline]] void weigh_tile(const AttentionRows<T>& rows, const KeyRange& range,
                                  Interval block, index_t first_row, index_t count,
                                  Interval columns, float* scores, SoftmaxState* state,
                                  float* factor) noexcept {
  const BlockPlan& plan = *rows.call.plan;
  VisibleColumns visible[score_rows];
  for (index_t i = 0; i < count; ++i) {
    const index_t token = rows.token(first_row + i);
    float* s = scores + i * score_stride;
    visible[i] = mask_row<Arch>(plan, range, visible_columns(plan, range, block, token),
                                token - rows.task.queries.begin, s);
    factor[i] =
        visible[i].hull.empty() ? 1.0f : state[i].raise(largest_of<Arch>(s, visible[i].hull));
  }
  for (index_t i = 0; i < count; ++i) {
    const float sum = weigh_row<Arch, T>(scores + i * score_stride, visible[i], columns,
                                         state[i].empty() ? 0 : state[i].reference);
    state[i].sum += static_cast<double>(sum);
  }
}

}  // namespace detail

/// One task: query block `block` of the plan, and the query heads that read key head `key_head`;
/// writes its rows of output and lse. Tasks are independent. A row that sees no key gets output 0
/// and lse -inf.
///
/// Canonical arithmetic (docs/design.md): scores are fma chains over channels; per key block the
/// partial output is an fma chain over keys from zero, then output = fma(output, 2^delta, partial).
/// Scores of six rows are made, weighed and multiplied with the values while they lie in the L1
/// cache; each row tile stops at the last key that one of its rows sees.
///
/// **Cost:** 4 D flops per visible (query, key) pair, rounded up to row tiles and vectors.
/// **Error:** 2e-6 of max |v| (tests/attention/test_attention.cpp); bf16: as the same formula with
/// rounded operands and weights, lse within 2^-8 because it is that of the rounded weights. A value
/// that is NaN may reach rows of the same six that do not see it (0 * NaN).
/// \param scratch attention_scratch_size<T>(head_dim) floats, aligned to 64 bytes
template <class Arch, class T>
void attend(const AttentionCall<T>& call, index_t block, index_t key_head,
            float* scratch) noexcept {
  using V = simd::Floats<Arch>;
  using E = simd::Multiplied<Arch, T>;
  constexpr bool widens = !std::is_same_v<E, T>;
  static_assert(GemmTile<Arch>::rows <= detail::score_rows, "a row tile's scores fit");
  constexpr index_t vector = depth_group<T> * lane_count;  // columns of a vector of weights
  const BlockPlan& plan = *call.plan;
  const QueryBlock& task = plan.query_blocks[static_cast<std::size_t>(block)];
  const index_t key_base = plan.segments[static_cast<std::size_t>(task.segment)].key_base;
  const KeyValuePanels<T>& values = call.branches[0].panels;
  const index_t head_dim = values.head_dim;
  const index_t group_heads = call.output.extent(1) / values.num_heads;
  const detail::AttentionScratch sizes{head_dim};
  const index_t padded = sizes.padded();
  float* output = scratch;                        // (rows, padded)
  float* scores = output + sizes.outputs();       // (score_rows, score_stride)
  float* wide_queries = scores + sizes.scores();  // (rows, depth), only where widened
  float* wide_keys = wide_queries + sizes.wide_queries();
  float* wide_values = wide_keys + sizes.wide_block();

  // A single query fills a row tile with its heads; keys and values are then read once for all.
  const bool heads_are_rows = task.queries.size() == 1 && group_heads <= query_block;
  const index_t rows_at_once = heads_are_rows ? group_heads : 1;
  for (index_t h = 0; h < group_heads; h += rows_at_once) {
    const detail::AttentionRows<T> rows{call, task, key_head * group_heads + h,
                                        heads_are_rows ? group_heads : task.queries.size(),
                                        heads_are_rows};
    SoftmaxState state[query_block];
    std::fill(output, output + rows.count * padded, 0.0f);
    for (index_t r = task.ranges.begin; r < task.ranges.end; ++r) {
      const KeyRange& range = plan.ranges[static_cast<std::size_t>(r)];
      const AttentionBranch<T>& branch = call.branches[static_cast<std::size_t>(range.branch)];
      const index_t depth = branch.panels.key_depth();
      const T* stored_queries = &branch.queries(task.queries.begin, rows.first_head, 0);
      const index_t stored_stride = branch.queries.stride(heads_are_rows ? 1 : 0);
      const E* queries;
      index_t query_stride = stored_stride;
      if constexpr (widens) {
        for (index_t row = 0; row < rows.count; ++row) {
          simd::widen_swapped<Arch>(stored_queries + row * stored_stride, depth,
                                    wide_queries + row * depth);
        }
        queries = wide_queries;
        query_stride = depth;
      } else {
        queries = stored_queries;
      }
      for (index_t k = range.keys.begin; k < range.keys.end; k += key_block) {
        const Interval keys{k, std::min(k + key_block, range.keys.end)};
        const index_t slot = key_base + k, slots = round_up(keys.size(), depth_group<T>);
        const E* block_keys;
        if constexpr (widens) {
          simd::widen_panel<Arch>(branch.panels.key_panel(key_head, slot),
                                  round_up(keys.size(), panel_width) / panel_width * depth / 2,
                                  panel_width, wide_keys);
          for (index_t p = 0; p < values.num_value_panels(); ++p) {
            simd::widen_panel<Arch>(values.value_panel(key_head, p, slot), slots / 2,
                                    values.value_width(p), wide_values + p * panel_width * slots);
          }
          block_keys = wide_keys;
        } else {
          block_keys = branch.panels.key_panel(key_head, slot);
        }
        detail::for_each_row_tile<Arch>(rows.count, [&](auto tile_rows, index_t row) {
          constexpr std::size_t R = tile_rows();
          constexpr auto count = static_cast<index_t>(R);
          Interval seen{keys.size(), 0};
          for (index_t i = 0; i < count; ++i) {
            const Interval columns =
                detail::visible_columns(plan, range, keys, rows.token(row + i));
            if (columns.empty()) continue;
            seen = {std::min(seen.begin, columns.begin), std::max(seen.end, columns.end)};
          }
          if (seen.empty()) return;
          const index_t first = seen.begin / panel_width * panel_width;
          const Interval columns{first, round_up(seen.end, vector)};
          float factor[R];
          {
            const simd::FlushSubnormals flush(std::is_same_v<T, bf16>);
            detail::score_tile<Arch, E, R>(queries + row * query_stride, query_stride, block_keys,
                                           depth, {first, round_up(seen.end, lane_count)}, scores);
          }
          detail::weigh_tile<Arch>(rows, range, keys, row, count, columns, scores, state + row,
                                   factor);
          const auto* weights = reinterpret_cast<const E*>(scores) + first;
          constexpr index_t weight_stride = score_stride * (sizeof(float) / sizeof(E));
          const index_t sum_depth = round_up(seen.end - first, depth_group<T>);
          const simd::FlushSubnormals flush(std::is_same_v<T, bf16>);
          for (index_t p = 0; p < values.num_value_panels(); ++p) {
            const index_t width = values.value_width(p);
            const E* from;
            if constexpr (widens) {
              from = wide_values + p * panel_width * slots + first * width;
            } else {
              from = values.value_panel(key_head, p, slot + first);
            }
            detail::add_values_tile<Arch, E, R>(weights, weight_stride, from, width, sum_depth,
                                                factor, output + row * padded + p * panel_width,
                                                padded);
          }
        });
      }
    }
    for (index_t row = 0; row < rows.count; ++row) {
      const index_t token = rows.token(row), head = rows.head(row);
      const V inverse(state[row].empty() ? 0.0f : static_cast<float>(1 / state[row].sum));
      T* out = &call.output(token, head, 0);
      for (index_t c = 0; c < head_dim; c += simd::lanes) {
        simd::store_rounded_part<Arch>(out + c, V::load(output + row * padded + c) * inverse,
                                       head_dim - c);
      }
      if (!call.lse.empty()) call.lse(head, token) = static_cast<float>(state[row].lse());
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
