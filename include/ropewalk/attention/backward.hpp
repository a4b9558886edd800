// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The gradient of blockwise attention, from the log-sum-exp that the forward pass left.

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>

#include "ropewalk/attention/blockwise.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// One rotation's operands and gradients.
template <class T>
struct AttentionGradientBranch {
  TensorView<const T, 3> queries;  ///< (tokens, H, D), as attend() read them
  KeyValuePanels<T> keys;          ///< keys: transposed, as attend() read them; values: as rows
  TensorView<float, 3> d_queries;  ///< (tokens, H, D) with respect to `queries` as given
  TensorView<float, 3> d_keys;     ///< (tokens, K, D)
};

/// What attend_backward() reads and writes; the same for all tasks of a layer.
template <class T>
struct AttentionGradientCall {
  std::span<const AttentionGradientBranch<T>> branches;
  KeyValuePanels<T> values;  ///< keys: the values, transposed; values: unused
  const BlockPlan* plan = nullptr;
  TensorView<const T, 3> output;    ///< (tokens, H, D) of attend()
  TensorView<const float, 2> lse;   ///< (H, tokens) of attend(), natural log
  TensorView<const T, 3> d_output;  ///< (tokens, H, D)
  TensorView<float, 3> d_values;    ///< (tokens, K, D)
};

namespace detail {

/// Keys that are weighed at a time: with their gradients they stay in the L1 and L2 caches.
/// Free: results do not depend on it.
inline constexpr index_t backward_keys = 128;
inline constexpr index_t backward_stride = backward_keys + simd::lanes;

/// acc += A B where element (r, k) of A is a[r * row + k * step] and B is (depth, columns), row
/// stride ldb; written to `columns` columns of c, which the chains of fma continue.
template <class Arch, std::size_t Rows, std::size_t Vectors>
[[gnu::noinline]] void continue_chain_tile(const float* a, TileStrides strides, const float* b,
                                           index_t ldb, index_t depth, float* c, index_t ldc,
                                           index_t columns) noexcept {
  using V = simd::Floats<Arch>;
  Accumulators<Arch, Rows, Vectors> acc;
  if (columns >= column_of(Vectors)) {
    acc.load(c, ldc);
    multiply_tile<Arch>(a, strides, b, ldb, depth, FetchNothing{}, acc);
    return acc.store(c, ldc);
  }
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      acc.sum[r][v] = V::load_part(c + static_cast<index_t>(r) * ldc + column_of(v),
                                   std::max<index_t>(columns - column_of(v), 0));
    }
  }
  multiply_tile<Arch>(a, strides, b, ldb, depth, FetchNothing{}, acc);
  ROPEWALK_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
    ROPEWALK_UNROLL
    for (std::size_t v = 0; v < Vectors; ++v) {
      acc.sum[r][v].store_part(c + static_cast<index_t>(r) * ldc + column_of(v),
                               std::max<index_t>(columns - column_of(v), 0));
    }
  }
}

/// Chains over `columns` columns of c, as wide tiles as there are.
template <class Arch, std::size_t Rows>
[[gnu::always_inline]] inline void continue_chains(const float* a, TileStrides strides,
                                                   const float* b, index_t ldb, index_t depth,
                                                   float* c, index_t ldc, index_t columns) {
  for_each_column_tile<Arch>(
      round_up(columns, simd::lanes), [&](auto vectors,
                                          index_t first) __attribute__((always_inline)) {
        continue_chain_tile<Arch, Rows, vectors()>(a, strides, b + first, ldb, depth, c + first,
                                                   ldc, columns - first);
      });
}

}  // namespace detail

/// Floats of scratch that attend_backward() needs per worker.
template <class T>
index_t attend_backward_scratch_size(index_t head_dim) {
  return query_block * 2 * (spread_stride(head_dim) + detail::backward_stride);
}

namespace detail {

/// The gradients of a segment under one key head.
template <class Arch>
class BackwardPass {
  using V = simd::Floats<Arch>;

 public:
  BackwardPass(const AttentionGradientCall<float>& call, index_t segment, index_t key_head,
               float* scratch)
      : call_(call),
        plan_(*call.plan),
        segment_(plan_.segments[static_cast<std::size_t>(segment)]),
        segment_index_(segment),
        key_head_(key_head),
        head_dim_(call.values.head_dim),
        padded_(spread_stride(head_dim_)),
        queries_(scratch),
        d_output_(queries_ + query_block * padded_),
        weights_(d_output_ + query_block * padded_),
        d_scores_(weights_ + query_block * backward_stride) {}

  void run() {
    for (index_t t = segment_.queries.begin; t < segment_.queries.end; ++t) {
      for (const auto& branch : call_.branches) clear(&branch.d_keys(t, key_head_, 0));
      clear(&call_.d_values(t, key_head_, 0));
    }
    const index_t group = call_.output.extent(1) / call_.values.num_heads;
    const auto& blocks = plan_.query_blocks;
    const auto first = std::partition_point(blocks.begin(), blocks.end(), [&](const QueryBlock& b) {
      return b.segment < segment_index_;
    });
    for (index_t h = key_head_ * group; h < (key_head_ + 1) * group; ++h) {
      for (auto b = first; b != blocks.end() && b->segment == segment_index_; ++b) add(*b, h);
    }
    for (index_t t = segment_.queries.begin; t < segment_.queries.end; ++t) {
      for (const auto& branch : call_.branches) to_natural(&branch.d_keys(t, key_head_, 0));
    }
  }

 private:
  void clear(float* row) const { std::fill_n(row, head_dim_, 0.0f); }
  /// Scores are in units of ln 2.
  void to_natural(float* row) const {
    for (index_t c = 0; c < head_dim_; c += simd::lanes) {
      const index_t left = head_dim_ - c;
      (V::load_part(row + c, left) * V(static_cast<float>(ln_2))).store_part(row + c, left);
    }
  }

  /// Everything that flows through the rows of a query block of head h.
  void add(const QueryBlock& block, index_t h) {
    block_ = &block;
    head_ = h;
    rows_ = block.queries.size();
    load_rows(call_.d_output, d_output_);
    for (index_t r = 0; r < rows_; ++r) {
      const index_t token = block.queries.begin + r;
      const float* out = &call_.output(token, h, 0);
      V sum(0.0f);
      for (index_t c = 0; c < head_dim_; c += simd::lanes) {
        sum = fma(V::load(d_output_ + r * padded_ + c), V::load_part(out + c, head_dim_ - c), sum);
      }
      delta_[r] = tree_sum(sum);
      // 2^(s - lse) as 2^(s - m) * 2^(m - lse) with an even m near the lse.
      const double lse = static_cast<double>(call_.lse(h, token)) * log2_e;
      const double m = std::fabs(lse) < 0x1p20 ? 2 * std::nearbyint(lse / 2) : 0;
      reference_[r] = static_cast<std::int32_t>(m);
      factor_[r] = elementary::exp_to_float((m - lse) * ln_2);
      for (const auto& branch : call_.branches) clear(&branch.d_queries(token, h, 0));
    }
    std::int32_t loaded = -1;
    for (index_t i = block.ranges.begin; i < block.ranges.end; ++i) {
      const KeyRange& range = plan_.ranges[static_cast<std::size_t>(i)];
      if (range.branch != loaded) load_rows(branch_of(range).queries, queries_);
      loaded = range.branch;
      for (index_t k = range.keys.begin; k < range.keys.end; k += backward_keys) {
        add(range, {k, std::min(k + backward_keys, range.keys.end)});
      }
    }
    for (const auto& branch : call_.branches) {
      for (index_t r = 0; r < rows_; ++r)
        to_natural(&branch.d_queries(block.queries.begin + r, h, 0));
    }
  }

  const AttentionGradientBranch<float>& branch_of(const KeyRange& range) const {
    return call_.branches[static_cast<std::size_t>(range.branch)];
  }
  /// The block's rows of the present head, side by side, padded with zeros.
  void load_rows(const TensorView<const float, 3>& from, float* to) const {
    for (index_t r = 0; r < rows_; ++r) {
      const float* row = &from(block_->queries.begin + r, head_, 0);
      for (index_t c = 0; c < head_dim_; c += simd::lanes) {
        V::load_part(row + c, head_dim_ - c).store(to + r * padded_ + c);
      }
    }
  }

  /// The keys of a range from keys.begin on, at most backward_keys.
  void add(const KeyRange& range, Interval keys) {
    find_tiles(range, keys);
    if (num_tiles_ == 0) return;
    const AttentionGradientBranch<float>& branch = branch_of(range);
    const index_t slot = segment_.key_base + keys.begin;
    score(queries_, branch.keys.key_panel(key_head_, slot), weights_);
    score(d_output_, call_.values.key_panel(key_head_, slot), d_scores_);
    weigh(range, keys);
    for (index_t p = 0; p < branch.keys.num_value_panels(); ++p) {
      add_d_queries(branch, p, slot);
    }
    const float* const from[2] = {d_output_, queries_};
    const float* const with[2] = {weights_, d_scores_};
    const TensorView<float, 3> to[2] = {call_.d_values, branch.d_keys};
    for (int i = 0; i < 2; ++i) {
      add_transposed(keys, with[i], from[i], to[i]);
    }
  }

  /// Row tiles that see some of the keys.
  void find_tiles(const KeyRange& range, Interval keys) {
    num_tiles_ = 0;
    all_seen_ = range.cover == KeyRange::Cover::full;
    for_each_row_tile<Arch>(rows_, [&](auto tile_rows, index_t row) {
      const auto count = static_cast<index_t>(tile_rows());
      Interval seen{keys.size(), 0};
      for (index_t i = 0; i < count; ++i) {
        const Interval columns =
            visible_columns(plan_, range, keys, block_->queries.begin + row + i);
        visible_[row + i] = columns;
        if (columns.empty()) continue;
        seen = {std::min(seen.begin, columns.begin), std::max(seen.end, columns.end)};
      }
      if (!seen.empty()) tiles_[num_tiles_++] = {row, count, seen};
    });
  }

  /// scores = rows x panels, where tiles see something.
  void score(const float* rows, const float* panel, float* scores) {
    for (index_t c = 0; c < backward_keys; c += panel_width, panel += panel_width * head_dim_) {
      for (index_t i = 0; i < num_tiles_; ++i) {
        const RowTile& tile = tiles_[i];
        const index_t columns = std::min(round_up(tile.seen.end, lane_count) - c, panel_width);
        if (columns <= 0 || tile.seen.begin >= c + panel_width) continue;
        with_rows<Arch>(tile, [&](auto tile_rows) {
          score_panel<Arch, tile_rows()>(rows + tile.row * padded_, padded_, panel, head_dim_,
                                         columns, FetchNothing{},
                                         scores + tile.row * backward_stride + c, backward_stride);
        });
      }
    }
  }

  /// weights = softmax, d_scores = weights (d_scores - delta); zeros where a row sees nothing.
  void weigh(const KeyRange& range, Interval keys) {
    const index_t end = round_up(keys.size(), lane_count);
    for (index_t r = tiles_[0].row; r < tiles_[num_tiles_ - 1].row + tiles_[num_tiles_ - 1].rows;
         ++r) {
      float* p = weights_ + r * backward_stride;
      float* d = d_scores_ + r * backward_stride;
      const Interval hull{visible_[r].begin / lane_count * lane_count,
                          visible_[r].empty() ? 0 : round_up(visible_[r].end, lane_count)};
      if (hull.empty()) {
        std::fill_n(p, end, 0.0f);
        std::fill_n(d, end, 0.0f);
        continue;
      }
      std::fill_n(p, hull.begin, 0.0f);
      std::fill_n(d, hull.begin, 0.0f);
      weigh_row(p, d, hull, r);
      mask_edges(p, d, hull, visible_[r]);
      if (range.cover == KeyRange::Cover::bits) mask_bits(range, keys, r, p, d);
      std::fill(p + hull.end, p + end, 0.0f);
      std::fill(d + hull.end, d + end, 0.0f);
    }
  }
  void weigh_row(float* p, float* d, Interval hull, index_t r) const {
    const simd::Exp2Reference<Arch> reference(reference_[r]);
    const V factor(factor_[r]), delta(delta_[r]);
    index_t c = hull.begin;
    const auto some = [&]<std::size_t N>(std::integral_constant<std::size_t, N>)
        __attribute__((always_inline)) {
      for (; c + static_cast<index_t>(N) * simd::lanes <= hull.end;
           c += static_cast<index_t>(N) * simd::lanes) {
        V x[N];
        ROPEWALK_UNROLL
        for (std::size_t i = 0; i < N; ++i) x[i] = V::load(p + c + column_of(i));
        simd::exp2_from(x, reference, simd::exp2_degree_5);
        ROPEWALK_UNROLL
        for (std::size_t i = 0; i < N; ++i) {
          const V weight = x[i] * factor;
          weight.store(p + c + column_of(i));
          (weight * (V::load(d + c + column_of(i)) - delta)).store(d + c + column_of(i));
        }
      }
    };
    some(std::integral_constant<std::size_t, GemmTile<Arch>::vectors>{});
    if constexpr (GemmTile<Arch>::vectors > 1) some(std::integral_constant<std::size_t, 1>{});
  }
  static void mask_edges(float* p, float* d, Interval hull, Interval visible) {
    const V zero(0.0f);
    for (float* row : {p, d}) {
      if (visible.begin != hull.begin) {
        V::select_first(visible.begin - hull.begin, zero, V::load(row + hull.begin))
            .store(row + hull.begin);
      }
      if (visible.end != hull.end) {
        float* last = row + hull.end - lane_count;
        V::select_first(visible.end - (hull.end - lane_count), V::load(last), zero).store(last);
      }
    }
  }
  void mask_bits(const KeyRange& range, Interval keys, index_t r, float* p, float* d) const {
    const std::uint64_t* words = plan_.bits.data() + range.bits + r * (key_block / 64);
    const index_t first = keys.begin - range.keys.begin;
    for (index_t c = 0; c < keys.size(); ++c) {
      const index_t bit = first + c;
      if ((words[bit / 64] >> (bit % 64) & 1) == 0) p[c] = d[c] = 0;
    }
  }

  /// Channels of panel p of d_queries += d_scores x keys.
  void add_d_queries(const AttentionGradientBranch<float>& branch, index_t p, index_t slot) {
    const index_t width = branch.keys.value_width(p), channel = p * panel_width;
    const float* keys = branch.keys.value_panel(key_head_, p, slot);
    const index_t stride = branch.d_queries.stride(0);
    for (index_t i = 0; i < num_tiles_; ++i) {
      const RowTile& tile = tiles_[i];
      const index_t first = tile.seen.begin;
      const float* d = d_scores_ + tile.row * backward_stride + first;
      float* to = &branch.d_queries(block_->queries.begin + tile.row, head_, channel);
      with_rows<Arch>(tile, [&](auto tile_rows) {
        continue_chains<Arch, tile_rows()>(d, {backward_stride, 1}, keys + first * width, width,
                                           tile.seen.size(), to, stride,
                                           std::min(head_dim_ - channel, width));
      });
    }
  }

  /// Rows of `to`, one a key, += with^T from, over the rows that see some of a tile's keys.
  void add_transposed(Interval keys, const float* with, const float* from,
                      const TensorView<float, 3>& to) {
    const Interval all{tiles_[0].row, tiles_[num_tiles_ - 1].row + tiles_[num_tiles_ - 1].rows};
    for_each_row_tile<Arch>(keys.size(), [&](auto tile_keys, index_t key) {
      constexpr auto count = static_cast<index_t>(tile_keys());
      Interval rows = all;
      if (!all_seen_) {
        const auto sees = [&](index_t r) {
          return visible_[r].begin < key + count && visible_[r].end > key;
        };
        while (!rows.empty() && !sees(rows.begin)) ++rows.begin;
        while (!rows.empty() && !sees(rows.end - 1)) --rows.end;
      }
      if (rows.empty()) return;
      for (index_t channel = 0; channel < head_dim_; channel += panel_width) {
        continue_chains<Arch, tile_keys()>(
            with + rows.begin * backward_stride + key, {1, backward_stride},
            from + rows.begin * padded_ + channel, padded_, rows.size(),
            &to(segment_.queries.begin + keys.begin + key, key_head_, channel), to.stride(0),
            std::min(head_dim_ - channel, panel_width));
      }
    });
  }

  const AttentionGradientCall<float>& call_;
  const BlockPlan& plan_;
  const Segment& segment_;
  index_t segment_index_;
  index_t key_head_;
  index_t head_dim_;
  index_t padded_;
  float* queries_;   ///< (rows, padded)
  float* d_output_;  ///< (rows, padded)
  float* weights_;   ///< (rows, backward_stride)
  float* d_scores_;  ///< (rows, backward_stride)
  const QueryBlock* block_ = nullptr;
  index_t head_ = 0;
  index_t rows_ = 0;
  bool all_seen_ = false;
  Interval visible_[query_block];
  float delta_[query_block];
  std::int32_t reference_[query_block];
  float factor_[query_block];
  RowTile tiles_[query_block];
  index_t num_tiles_ = 0;
};

}  // namespace detail

/// One task: the rows of a segment (without a past) and the query heads that read key head
/// `key_head`. Writes their rows of d_queries, d_keys and d_values. Tasks are independent.
///
/// With s = q k in base-2 units, P = 2^(s - lse), delta = sum_c dO O (arXiv:2307.08691, section
/// 3.1; delta is arXiv:2205.14135's):
///
///     dV = P^T dO,   dS = P (dO V^T - delta),   dQ = ln 2 dS K,   dK = ln 2 dS^T Q
///
/// Canonical arithmetic: each element is one fma chain, dQ over keys ascending, dK and dV over the
/// heads of the group and their queries ascending. What is not visible adds zeros.
///
/// **Cost:** 10 D flops per visible (query, key) pair and head, rounded up to row tiles and
/// vectors.
/// **Error:** 2e-6 of the largest element (tests/attention/test_backward.cpp).
/// \param scratch attend_backward_scratch_size<T>(head_dim) floats, aligned to 64 bytes
template <class Arch, class T>
void attend_backward(const AttentionGradientCall<T>& call, index_t segment, index_t key_head,
                     float* scratch) noexcept {
  static_assert(std::is_same_v<T, float>, "gradients of bf16 operands are not built yet");
  detail::BackwardPass<Arch>(call, segment, key_head, scratch).run();
}

}  // namespace ropewalk::inline ROPEWALK_ABI
