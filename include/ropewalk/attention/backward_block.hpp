// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A query block of one head on its way back: its rows, the weights of some keys and the gradients
/// of their scores, as products take them.

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>
#include <utility>

#include "ropewalk/attention/backward_call.hpp"
#include "ropewalk/attention/row_tiles.hpp"
#include "ropewalk/core/elementary.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// Keys that are weighed at a time: with their gradients they stay in the L1 and L2 caches.
/// Free: results do not depend on it.
inline constexpr index_t backward_keys = 128;
inline constexpr index_t backward_stride = backward_keys + simd::lanes;

/// Whether an operand has a form for products along its rows, and another one for those over rows.
template <class T>
inline constexpr bool has_two_forms = depth_group<T> == 2;

/// Floats of what a BackwardBlock keeps.
template <class T>
struct BackwardScratch {
  index_t head_dim;

  index_t padded() const { return spread_stride(head_dim); }
  index_t rows() const { return query_block * padded(); }
  static constexpr index_t weights() { return query_block * backward_stride; }
  index_t size() const {
    return has_two_forms<T> ? 4 * rows() + 3 * weights() : 2 * (rows() + weights());
  }
};

/// For float, an operand is one matrix. For bf16 it is rounded, and for products over rows two rows
/// are put side by side, the first of them even (simd::pair_rows): where kernels multiply floats,
/// these are two rows that changed places.
template <class Arch, class T>
class BackwardBlock {
  using V = simd::Floats<Arch>;

 public:
  using Element = simd::Multiplied<Arch, T>;
  /// Rows that sums over rows take together, and keys that sums over keys do.
  static constexpr index_t pair = depth_group<T>;
  /// Rows that lie side by side in an operand of products over rows.
  static constexpr index_t group = depth_group<Element>;

  /// Rows of queries, or of the output's gradient.
  struct Rows {
    Element* along = nullptr;  ///< (rows, padded)
    Element* over = nullptr;   ///< (rows / group, padded, group)
  };

  BackwardBlock(const BlockPlan& plan, index_t head_dim, float* scratch)
      : plan_(plan), head_dim_(head_dim), padded_(BackwardScratch<T>{head_dim}.padded()) {
    const auto take = [&](index_t size) { return std::exchange(scratch, scratch + size); };
    const index_t size = BackwardScratch<T>{head_dim}.rows();
    for (Rows* rows : {&queries_, &d_output_}) {
      rows->along = reinterpret_cast<Element*>(take(size));
      rows->over = has_two_forms<T> ? reinterpret_cast<Element*>(take(size)) : rows->along;
    }
    weights_ = take(BackwardScratch<T>::weights());
    d_scores_ = take(BackwardScratch<T>::weights());
    d_scores_along_ = reinterpret_cast<Element*>(has_two_forms<T> ? scratch : d_scores_);
  }

  /// Goes on to the rows of a block that attended as head `head`.
  void begin(const AttentionGradientCall<T>& call, const QueryBlock& block, index_t head) {
    block_ = &block;
    head_ = head;
    rows_ = block.queries.size();
    load(call.d_output, d_output_);
    for (index_t r = 0; r < rows_; ++r) {
      const index_t token = block.queries.begin + r;
      const T* out = &call.output(token, head, 0);
      V sum(0.0f);
      for (index_t c = 0; c < head_dim_; c += simd::lanes) {
        sum = fma(simd::load_widened<Arch>(d_output_.along + r * padded_ + c),
                  simd::load_widened_part<Arch>(out + c, head_dim_ - c), sum);
      }
      delta_[r] = tree_sum(sum);
      // 2^(s - lse) as 2^(s - m) * 2^(m - lse) with an even m near the lse.
      const double lse = static_cast<double>(call.lse(head, token)) * log2_e;
      const double m = std::fabs(lse) < 0x1p20 ? 2 * std::nearbyint(lse / 2) : 0;
      reference_[r] = static_cast<std::int32_t>(m);
      factor_[r] = elementary::exp_to_float((m - lse) * ln_2);
    }
  }
  void take_queries(const TensorView<const T, 3>& queries) { load(queries, queries_); }

  /// Whether some row sees some of the keys, at most backward_keys from keys.begin on. Then
  /// weights() and their gradients are to be made of scores.
  bool look_at(const KeyRange& range, Interval keys) {
    range_ = &range;
    keys_ = keys;
    num_tiles_ = 0;
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
    return num_tiles_ > 0;
  }
  /// Makes weights and d_scores of the keys in the panels from these on.
  void weigh(const T* keys, const T* values) {
    score(queries_.along, keys, weights_);
    score(d_output_.along, values, d_scores_);
    for (index_t r = seen_rows().begin; r < seen_rows().end; ++r) {
      weigh(r, weights_ + r * backward_stride, d_scores_ + r * backward_stride);
    }
    if constexpr (has_two_forms<T>) make_forms();
  }

  std::span<const RowTile> tiles() const { return {tiles_, static_cast<std::size_t>(num_tiles_)}; }
  /// Rows of the first tile to those of the last.
  Interval seen_rows() const {
    const RowTile& last = tiles_[num_tiles_ - 1];
    return {tiles_[0].row, last.row + last.rows};
  }
  /// From the first row that sees some of these keys to the last one, in whole pairs.
  Interval rows_that_see(Interval keys) const {
    Interval rows = seen_rows();
    if (range_->cover != KeyRange::Cover::full) {
      const auto sees = [&](index_t r) {
        return visible_[r].begin < keys.end && visible_[r].end > keys.begin;
      };
      while (!rows.empty() && !sees(rows.begin)) ++rows.begin;
      while (!rows.empty() && !sees(rows.end - 1)) --rows.end;
    }
    return rows.empty() ? Interval{} : Interval{rows.begin / pair * pair, round_up(rows.end, pair)};
  }

  /// Gradients of scores for products along keys: (rows, keys), row stride backward_stride.
  const Element* d_scores(index_t row) const { return d_scores_along_ + row * backward_stride; }

  /// An operand of products over rows, from a row on, the first of a pair: weights or d_scores as
  /// the left one (elements of keys are `group` apart), d_output or queries as the right one.
  struct OverRows {
    const float* left;
    const Element* right;
    index_t padded;

    static constexpr TileStrides left_strides{
        group, backward_stride* group* static_cast<index_t>(sizeof(float) / sizeof(Element))};
    const Element* left_from(index_t row, index_t key) const {
      return reinterpret_cast<const Element*>(left + row * backward_stride) + key * group;
    }
    const Element* right_from(index_t row, index_t channel) const {
      return right + row * padded + channel * group;
    }
  };
  OverRows weights_and_d_output() const { return {weights_, d_output_.over, padded_}; }
  OverRows d_scores_and_queries() const { return {d_scores_, queries_.over, padded_}; }

 private:
  /// The block's rows of the present head, padded with zeros.
  template <class S>
  void load(const TensorView<const S, 3>& from, const Rows& to) const {
    for (index_t r = 0; r < round_up(rows_, pair); ++r) {
      const index_t left = r < rows_ ? head_dim_ : 0;
      const S* row = &from(block_->queries.begin + std::min(r, rows_ - 1), head_, 0);
      for (index_t c = 0; c < head_dim_; c += simd::lanes) {
        simd::store_multiplied<Arch, T>(to.along + r * padded_ + c,
                                        simd::load_widened_part<Arch>(row + c, left - c));
      }
    }
    if constexpr (has_two_forms<T>) {
      for (index_t r = 0; r < rows_; r += pair) {
        const Element* even = to.along + r * padded_;
        for (index_t c = 0; c < head_dim_; c += simd::lanes) {
          simd::pair_rows<Arch>(even + c, even + padded_ + c, to.over + r * padded_ + c * group,
                                padded_);
        }
      }
    }
  }

  /// scores = rows x panels, where tiles see something.
  void score(const Element* rows, const T* panel, float* scores) const {
    const index_t depth = round_up(head_dim_, pair);
    for (index_t c = 0; c < backward_keys; c += panel_width, panel += panel_width * depth) {
      for (const RowTile& tile : tiles()) {
        const index_t columns = std::min(round_up(tile.seen.end, lane_count) - c, panel_width);
        if (columns <= 0 || tile.seen.begin >= c + panel_width) continue;
        with_rows<Arch>(tile, [&](auto tile_rows) {
          score_panel<Arch, tile_rows()>(rows + tile.row * padded_, padded_, panel, depth, columns,
                                         FetchNothing{}, scores + tile.row * backward_stride + c,
                                         backward_stride);
        });
      }
    }
  }

  /// Scores become weights, and gradients of weights those of scores; what the row does not see is
  /// zero.
  void weigh(index_t r, float* p, float* d) const {
    const index_t end = round_up(keys_.size(), lane_count);
    const Interval seen = visible_[r];
    const Interval hull{seen.begin / lane_count * lane_count,
                        seen.empty() ? 0 : round_up(seen.end, lane_count)};
    if (hull.empty()) {
      std::fill_n(p, end, 0.0f);
      std::fill_n(d, end, 0.0f);
      return;
    }
    std::fill_n(p, hull.begin, 0.0f);
    std::fill_n(d, hull.begin, 0.0f);
    weigh_seen(p, d, hull, r);
    mask_edges(p, d, hull, seen);
    if (range_->cover == KeyRange::Cover::bits) mask_bits(r, p, d);
    std::fill(p + hull.end, p + end, 0.0f);
    std::fill(d + hull.end, d + end, 0.0f);
  }
  void weigh_seen(float* p, float* d, Interval hull, index_t r) const {
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
        if constexpr (std::is_same_v<T, float>) {
          simd::exp2_from(x, reference, simd::exp2_degree_5);
        } else {
          simd::exp2_from(x, reference, simd::exp2_degree_3);
        }
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
  void mask_bits(index_t r, float* p, float* d) const {
    const std::uint64_t* words = plan_.bits.data() + range_->bits + r * (key_block / 64);
    const index_t first = keys_.begin - range_->keys.begin;
    for (index_t c = 0; c < keys_.size(); ++c) {
      const index_t bit = first + c;
      if ((words[bit / 64] >> (bit % 64) & 1) == 0) p[c] = d[c] = 0;
    }
  }

  /// Rounds weights and d_scores, each in its place for products over rows, and d_scores once more
  /// for those along keys. An odd last row is paired with zeros.
  void make_forms() const {
    const index_t end = round_up(keys_.size(), lane_count);
    const Interval rows = seen_rows();
    for (index_t r = rows.begin; r < rows.end; r += pair) {
      float *p = weights_ + r * backward_stride, *d = d_scores_ + r * backward_stride;
      Element* along = d_scores_along_ + r * backward_stride;
      if (r + 1 == rows.end) {
        std::fill_n(p + backward_stride, end, 0.0f);
        std::fill_n(d + backward_stride, end, 0.0f);
      }
      for (index_t c = 0; c < end; c += simd::lanes) {
        const V even = V::load(d + c), odd = V::load(d + backward_stride + c);
        simd::pair_rows<Arch>(p + c, p + backward_stride + c,
                              reinterpret_cast<Element*>(p) + c * group, backward_stride);
        simd::pair_rows(even, odd, reinterpret_cast<Element*>(d) + c * group, backward_stride);
        simd::store_multiplied<Arch, T>(along + c, even);
        simd::store_multiplied<Arch, T>(along + backward_stride + c, odd);
      }
    }
  }

  const BlockPlan& plan_;
  index_t head_dim_;
  index_t padded_;
  Rows queries_, d_output_;
  float* weights_;           ///< (rows, backward_stride), at last as OverRows
  float* d_scores_;          ///< (rows, backward_stride), at last as OverRows
  Element* d_scores_along_;  ///< (rows, backward_stride)
  const QueryBlock* block_ = nullptr;
  const KeyRange* range_ = nullptr;
  Interval keys_{};
  index_t head_ = 0;
  index_t rows_ = 0;
  Interval visible_[query_block];
  float delta_[query_block];
  std::int32_t reference_[query_block];
  float factor_[query_block];
  RowTile tiles_[query_block];
  index_t num_tiles_ = 0;
};

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
