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
#include "ropewalk/attention/backward_products.hpp"
#include "ropewalk/core/elementary.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// Keys that are weighed at a time: with their gradients they stay in the L1 and L2 caches.
/// Free: results do not depend on it.
inline constexpr index_t backward_keys = 128;
inline constexpr index_t backward_stride = backward_keys + simd::lanes;

/// Row stride of weights that are transposed: rows of a query block, and a line more.
inline constexpr index_t transposed_stride = query_block + simd::tile_depth;

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
  /// Weights, or gradients of scores, transposed for matrix tiles.
  static constexpr index_t transposed() { return backward_keys * transposed_stride / 2; }
  index_t size() const {
    return has_two_forms<T> ? 4 * rows() + 3 * weights() + 2 * transposed()
                            : 2 * (rows() + weights());
  }
};

/// For float, an operand is one matrix. For bf16 it is rounded, and for products over rows two rows
/// are put side by side, the first of them even (simd::pair_rows): where kernels multiply floats,
/// these are two rows that changed places. Matrix tiles take left operands of products over rows
/// transposed.
template <class Arch, class T>
class BackwardBlock {
  using V = simd::Floats<Arch>;

 public:
  using Products = BackwardProducts<Arch, T>;
  using Element = typename Products::Element;
  static constexpr bool by_matrix_tiles = simd::takes_matrix_tiles<Arch, T>;
  /// Rows that sums over rows take together, and keys that sums over keys do.
  static constexpr index_t together = Products::together;
  static_assert(query_block % together == 0 && backward_keys % together == 0);
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
    d_scores_along_ = reinterpret_cast<Element*>(
        has_two_forms<T> ? take(BackwardScratch<T>::weights()) : d_scores_);
    if constexpr (by_matrix_tiles) {
      weights_transposed_ = reinterpret_cast<T*>(take(BackwardScratch<T>::transposed()));
      d_scores_transposed_ = reinterpret_cast<T*>(take(BackwardScratch<T>::transposed()));
    }
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
    for_each_tile_of_rows<Arch, T>(rows_, [&](index_t row, index_t count) {
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
  void weigh(const T* keys, const T* values, Products& products) {
    score(queries_.along, keys, weights_, products);
    score(d_output_.along, values, d_scores_, products);
    products.store();
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
  /// From the first row that sees some of these keys to the last one, and what sums take together
  /// with these.
  Interval rows_that_see(Interval keys) const {
    Interval rows = seen_rows();
    if (range_->cover != KeyRange::Cover::full) {
      const auto sees = [&](index_t r) {
        return visible_[r].begin < keys.end && visible_[r].end > keys.begin;
      };
      while (!rows.empty() && !sees(rows.begin)) ++rows.begin;
      while (!rows.empty() && !sees(rows.end - 1)) --rows.end;
    }
    if (rows.empty()) return {};
    return {rows.begin / together * together, round_up(rows.end, together)};
  }

  /// Gradients of scores for products along keys: (rows, keys), row stride backward_stride.
  const Element* d_scores(index_t row) const { return d_scores_along_ + row * backward_stride; }

  /// The operands of a product over rows: weights or d_scores, keys by rows, and d_output or
  /// queries, rows by channels.
  struct OverRows {
    const Element* left;
    const Element* right;
    index_t padded;

    /// How far it is from a key to the next one, and from rows that are taken together.
    static constexpr TileStrides left_strides =
        by_matrix_tiles
            ? TileStrides{transposed_stride, 2}
            : TileStrides{group, group* backward_stride* index_t{sizeof(float) / sizeof(Element)}};
    /// From a row on, the first of those that are taken together.
    const Element* left_from(index_t row, index_t key) const {
      return left + key * left_strides.row +
             (by_matrix_tiles ? row : row / group * left_strides.step);
    }
    const Element* right_from(index_t row, index_t channel) const {
      return right + row * padded + channel * group;
    }
  };
  OverRows weights_and_d_output() const {
    return {left_of(weights_, weights_transposed_), d_output_.over, padded_};
  }
  OverRows d_scores_and_queries() const {
    return {left_of(d_scores_, d_scores_transposed_), queries_.over, padded_};
  }

 private:
  static const Element* left_of(const float* in_place, const T* transposed) {
    return reinterpret_cast<const Element*>(by_matrix_tiles ? static_cast<const void*>(transposed)
                                                            : in_place);
  }

  /// The block's rows of the present head, padded with zeros.
  template <class S>
  void load(const TensorView<const S, 3>& from, const Rows& to) const {
    const index_t end = round_up(rows_, together);
    for (index_t r = 0; r < end; ++r) {
      const index_t left = r < rows_ ? head_dim_ : 0;
      const S* row = &from(block_->queries.begin + std::min(r, rows_ - 1), head_, 0);
      for (index_t c = 0; c < head_dim_; c += simd::lanes) {
        simd::store_operand<Arch, T>(to.along + r * padded_ + c,
                                     simd::load_widened_part<Arch>(row + c, left - c));
      }
    }
    if constexpr (has_two_forms<T>) {
      for (index_t r = 0; r < end; r += 2) {
        const Element* even = to.along + r * padded_;
        for (index_t c = 0; c < head_dim_; c += simd::lanes) {
          simd::pair_rows<Arch>(even + c, even + padded_ + c, to.over + r * padded_ + c * group,
                                padded_);
        }
      }
    }
  }

  /// scores = rows x panels, where tiles see something.
  void score(const Element* rows, const T* panel, float* scores, Products& products) const {
    const index_t depth = round_up(head_dim_, depth_group<T>);
    for (index_t c = 0; c < backward_keys; c += panel_width, panel += panel_width * depth) {
      for (const RowTile& tile : tiles()) {
        const index_t columns = std::min(round_up(tile.seen.end, lane_count) - c, panel_width);
        if (columns <= 0 || tile.seen.begin >= c + panel_width) continue;
        products.score(rows + tile.row * padded_, padded_, tile.rows, panel, depth, columns,
                       scores + tile.row * backward_stride + c, backward_stride);
      }
    }
  }

  /// Scores become weights, and gradients of weights those of scores; what the row does not see is
  /// zero.
  void weigh(index_t r, float* p, float* d) const {
    const index_t end = weighed_keys();
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
        weights_from<T>(x, reference);
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

  /// Keys whose weights are made, or are zero.
  index_t weighed_keys() const { return round_up(keys_.size(), std::max(lane_count, together)); }

  /// Rounds weights and d_scores for products over rows, and d_scores once more for those along
  /// keys. Rows that are missing to those that are taken together are zeros.
  void make_forms() const {
    const index_t end = weighed_keys();
    const Interval rows{seen_rows().begin, round_up(seen_rows().end, together)};
    for (index_t r = seen_rows().end; r < rows.end; ++r) {
      std::fill_n(weights_ + r * backward_stride, end, 0.0f);
      std::fill_n(d_scores_ + r * backward_stride, end, 0.0f);
    }
    for (index_t r = rows.begin; r < rows.end; r += 2 * pairs_at_once) {
      for (index_t c = 0; c < end; c += simd::lanes) {
        if constexpr (by_matrix_tiles) {
          make_transposed_forms(r, c);
        } else {
          float* p = weights_ + r * backward_stride;
          float* d = d_scores_ + r * backward_stride;
          make_forms(r, c, reinterpret_cast<Element*>(p) + c * group,
                     reinterpret_cast<Element*>(d) + c * group);
        }
      }
    }
  }
  static constexpr index_t pairs_at_once = by_matrix_tiles ? simd::lanes : 1;

  /// Of two rows and 16 keys; those for products over rows go to p and d, which may be the rows.
  [[gnu::always_inline]] void make_forms(index_t row, index_t key, Element* p, Element* d) const {
    const index_t even = row * backward_stride + key, odd = even + backward_stride;
    const V first = V::load(d_scores_ + even), second = V::load(d_scores_ + odd);
    simd::pair_rows<Arch>(weights_ + even, weights_ + odd, p, backward_stride);
    simd::pair_rows(first, second, d, backward_stride);
    simd::store_operand<Arch, T>(d_scores_along_ + even, first);
    simd::store_operand<Arch, T>(d_scores_along_ + odd, second);
  }
  /// Of 32 rows and 16 keys, transposed.
  void make_transposed_forms(index_t row, index_t key) const {
    struct Pair {
      T even, odd;
    };
    alignas(storage_alignment) Pair p[simd::lanes * simd::lanes], d[simd::lanes * simd::lanes];
    for (index_t i = 0; i < simd::lanes; ++i) {
      make_forms(row + 2 * i, key, &p[i * simd::lanes].even, &d[i * simd::lanes].even);
    }
    const index_t to = key * transposed_stride + row;
    simd::transpose_16x16<Arch>(p, simd::lanes, reinterpret_cast<Pair*>(weights_transposed_ + to),
                                transposed_stride / 2);
    simd::transpose_16x16<Arch>(d, simd::lanes, reinterpret_cast<Pair*>(d_scores_transposed_ + to),
                                transposed_stride / 2);
  }

  const BlockPlan& plan_;
  index_t head_dim_;
  index_t padded_;
  Rows queries_, d_output_;
  float* weights_;                    ///< (rows, backward_stride); at last for products over rows
  float* d_scores_;                   ///< (rows, backward_stride); at last for products over rows
  Element* d_scores_along_;           ///< (rows, backward_stride)
  T* weights_transposed_ = nullptr;   ///< (keys, transposed_stride)
  T* d_scores_transposed_ = nullptr;  ///< (keys, transposed_stride)
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
