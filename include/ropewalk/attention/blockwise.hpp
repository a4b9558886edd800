// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Blockwise attention with online softmax, over a BlockPlan and key/value panels.

#include <cmath>
#include <optional>
#include <span>

#include "ropewalk/attention/block_plan.hpp"
#include "ropewalk/attention/row_tiles.hpp"
#include "ropewalk/core/executor.hpp"
#include "ropewalk/linalg/panel_product.hpp"

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

/// What one call of attend() does: query blocks, and the heads that read one key head.
struct AttentionTask {
  Interval blocks;  ///< in BlockPlan::query_blocks
  index_t key_head = 0;
};

namespace detail {

/// Query rows, a block of one head each, that pass over a key block one after the other while it is
/// in the L2 cache.
inline constexpr index_t bundle_size = 4;

/// Floats of what attend() keeps per worker: outputs of a bundle and the scores of a query block
/// with a key block; for bf16 also room for what is widened where there is no dot product of pairs.
struct AttentionScratch {
  index_t head_dim;

  index_t padded() const { return spread_stride(head_dim); }
  index_t rows() const { return query_block * padded(); }
  index_t scores() const { return query_block * score_stride; }
  index_t wide_block() const { return key_block * round_up(head_dim, lane_count); }
};

}  // namespace detail

/// Floats of scratch that attend() needs per worker.
template <class T>
index_t attention_scratch_size(index_t head_dim) {
  const detail::AttentionScratch s{head_dim};
  const index_t wide = std::is_same_v<T, bf16> ? s.rows() + 2 * s.wide_block() : 0;
  return detail::bundle_size * s.rows() + s.scores() + wide;
}

/// The tasks of a layer, the longest first where later queries see more keys. Where keys and values
/// of a head exceed what stays in the L2 cache, a task has blocks enough for a bundle, unless few
/// tasks would be left for each worker.
class AttentionTasks {
 public:
  template <class T>
  AttentionTasks(const AttentionCall<T>& call, const Executor& executor)
      : num_blocks_(std::ssize(call.plan->query_blocks)),
        key_heads_(call.branches[0].panels.num_heads) {
    index_t keys = 0;
    for (const Segment& s : call.plan->segments) keys = std::max(keys, s.num_keys());
    const index_t token_bytes =
        2 * call.branches[0].panels.head_dim * static_cast<index_t>(sizeof(T));
    if (keys * token_bytes <= 2 * kept_bytes) return;
    together_ = std::max<index_t>(detail::bundle_size * key_heads_ / call.output.extent(1), 1);
    const index_t workers = executor.concurrent() ? executor.workers() : 1;
    while (together_ > 1 && size() < 8 * workers) together_ /= 2;
  }
  index_t size() const { return (num_blocks_ + together_ - 1) / together_ * key_heads_; }
  AttentionTask operator[](index_t i) const {
    const index_t end = num_blocks_ - i / key_heads_ * together_;
    return {{std::max<index_t>(end - together_, 0), end}, i % key_heads_};
  }

 private:
  index_t num_blocks_;
  index_t key_heads_;
  index_t together_ = 1;
};

namespace detail {

/// Rows that attend together: queries of one head, or one query of several heads.
struct AttentionRows {
  const QueryBlock* block = nullptr;
  index_t first_head = 0;
  index_t count = 0;
  bool heads_are_rows = false;
  float* output = nullptr;  ///< (rows, padded), not yet divided by the sums
  SoftmaxState state[query_block];

  index_t token(index_t row) const { return block->queries.begin + (heads_are_rows ? 0 : row); }
  index_t head(index_t row) const { return first_head + (heads_are_rows ? row : 0); }
};

/// A bundle of query rows that read one key head, on its way over the key blocks.
template <class Arch, class T>
class AttentionPass {
  static constexpr bool by_matrix_tiles = simd::takes_matrix_tiles<Arch, T>;
  using E = std::conditional_t<by_matrix_tiles, T, simd::Multiplied<Arch, T>>;
  using V = simd::Floats<Arch>;
  static constexpr bool widens = !std::is_same_v<E, T>;
  static constexpr index_t group = depth_group<T>;

 public:
  AttentionPass(const AttentionCall<T>& call, index_t key_head, float* scratch)
      : call_(call),
        plan_(*call.plan),
        values_(call.branches[0].panels),
        key_head_(key_head),
        padded_(AttentionScratch{values_.head_dim}.padded()) {
    const AttentionScratch sizes{values_.head_dim};
    scores_ = scratch;
    outputs_ = scores_ + sizes.scores();
    wide_queries_ = outputs_ + bundle_size * sizes.rows();
    wide_keys_ = wide_queries_ + sizes.rows();
    wide_values_ = wide_keys_ + sizes.wide_block();
  }

  /// Whether rows of the block can join those that are in the bundle.
  bool takes(const QueryBlock& block) const {
    return size_ == 0 || (size_ < bundle_size && bundle_[0]->block->segment == block.segment);
  }
  void add(const QueryBlock& block, index_t first_head, index_t count, bool heads_are_rows) {
    AttentionRows& rows = bundle_[size_].emplace();
    rows.output = outputs_ + size_++ * query_block * padded_;
    rows.block = &block;
    rows.first_head = first_head;
    rows.count = count;
    rows.heads_are_rows = heads_are_rows;
    std::fill(rows.output, rows.output + count * padded_, 0.0f);
  }
  /// Takes the bundle over all its keys, block by block; writes its rows of output and lse, and
  /// empties it.
  void run() {
    Interval keys{0, 0};
    for_each_range([&](const KeyRange& range) {
      keys = keys.empty() ? range.keys
                          : Interval{std::min(keys.begin, range.keys.begin),
                                     std::max(keys.end, range.keys.end)};
    });
    for (index_t k = keys.begin; k < keys.end; k += key_block) {
      for_each_range([&](const KeyRange& range) {
        const Interval part{k, std::min(k + key_block, range.keys.end)};
        if (range.keys.begin <= k && !part.empty()) add_keys(range, part);
      });
    }
    for (index_t i = 0; i < size_; ++i) finish(*bundle_[i]);
    size_ = 0;
  }

 private:
  /// f(range) for the ranges of all rows of the bundle, which are rows_ meanwhile.
  template <class F>
  void for_each_range(F&& f) {
    for (index_t i = 0; i < size_; ++i) {
      rows_ = &*bundle_[i];
      const Interval ranges = rows_->block->ranges;
      for (index_t r = ranges.begin; r < ranges.end; ++r) {
        f(plan_.ranges[static_cast<std::size_t>(r)]);
      }
    }
  }

  /// The keys of a block, of a range.
  void add_keys(const KeyRange& range, Interval keys) {
    const AttentionBranch<T>& branch = call_.branches[static_cast<std::size_t>(range.branch)];
    const index_t depth = branch.panels.key_depth();
    const T* queries = &branch.queries(rows_->block->queries.begin, rows_->first_head, 0);
    const index_t stride = branch.queries.stride(rows_->heads_are_rows ? 1 : 0);
    const Segment& segment = plan_.segments[static_cast<std::size_t>(rows_->block->segment)];
    const index_t slot = segment.key_base + keys.begin;
    find_tiles(range, keys);
    if constexpr (widens) {
      for (index_t row = 0; row < rows_->count; ++row) {
        simd::widen_swapped<Arch>(queries + row * stride, depth, wide_queries_ + row * padded_);
      }
      widen(range.branch, slot, keys.size());
      score(wide_queries_, padded_, wide_keys_, depth);
    } else {
      score(queries, stride, branch.panels.key_panel(key_head_, slot), depth);
    }
    weigh(range, keys);
    for (index_t p = 0; p < values_.num_value_panels(); ++p) {
      if constexpr (widens) {
        add_values(p, wide_values_ + p * panel_width * key_block);
      } else {
        add_values(p, values_.value_panel(key_head_, p, slot));
      }
    }
  }

  /// Divides by the sums and writes the rows of output and lse.
  void finish(const AttentionRows& rows) const {
    for (index_t row = 0; row < rows.count; ++row) {
      const index_t token = rows.token(row), head = rows.head(row);
      const SoftmaxState& state = rows.state[row];
      const V inverse(state.empty() ? 0.0f : static_cast<float>(1 / state.sum));
      T* out = &call_.output(token, head, 0);
      for (index_t c = 0; c < values_.head_dim; c += simd::lanes) {
        simd::store_rounded_part<Arch>(out + c, V::load(rows.output + row * padded_ + c) * inverse,
                                       values_.head_dim - c);
      }
      if (!call_.lse.empty()) call_.lse(head, token) = state.rounded_lse();
    }
  }

  /// Row tiles that see some of the keys.
  void find_tiles(const KeyRange& range, Interval keys) {
    const AttentionRows& rows = *rows_;
    num_tiles_ = 0;
    for_each_tile_of_rows<Arch, T>(rows.count, [&](index_t row, index_t count) {
      Interval seen{keys.size(), 0};
      for (index_t i = 0; i < count; ++i) {
        const Interval columns = visible_columns(plan_, range, keys, rows.token(row + i));
        if (columns.empty()) continue;
        seen = {std::min(seen.begin, columns.begin), std::max(seen.end, columns.end)};
      }
      if (!seen.empty()) tiles_[num_tiles_++] = {row, count, seen};
    });
  }

  /// Panels of keys and values of a block as floats, the odd element of each pair first.
  void widen(std::int32_t branch, index_t slot, index_t count) {
    if (widened_.branch == branch && widened_.slot == slot && widened_.count >= count) return;
    widened_ = {branch, slot, count};
    const KeyValuePanels<T>& keys = call_.branches[static_cast<std::size_t>(branch)].panels;
    const index_t depth = keys.key_depth(), pairs = (count + 1) / 2;
    simd::widen_panel<Arch>(keys.key_panel(key_head_, slot),
                            round_up(count, panel_width) / panel_width * depth / 2, panel_width,
                            wide_keys_);
    for (index_t p = 0; p < values_.num_value_panels(); ++p) {
      simd::widen_panel<Arch>(values_.value_panel(key_head_, p, slot), pairs,
                              values_.value_width(p), wide_values_ + p * panel_width * key_block);
    }
  }

  void score(const E* queries, index_t stride, const E* keys, index_t depth) {
    const index_t num_keys =
        plan_.segments[static_cast<std::size_t>(rows_->block->segment)].num_keys();
    [[maybe_unused]] const bool streams =
        2 * num_keys * depth * static_cast<index_t>(sizeof(E)) > kept_bytes;
    index_t end = 0;
    for (index_t i = 0; i < num_tiles_; ++i) end = std::max(end, tiles_[i].seen.end);
    for (index_t c = 0; c < end; c += panel_width, keys += panel_width * depth) {
      for (index_t i = 0; i < num_tiles_; ++i) {
        const RowTile& tile = tiles_[i];
        const index_t columns = std::min(round_up(tile.seen.end, lane_count) - c, panel_width);
        if (columns <= 0 || tile.seen.begin >= c + panel_width) continue;
        float* scores = scores_ + tile.row * score_stride + c;
        if constexpr (by_matrix_tiles) {
          matrix_tiles_.multiply(queries + tile.row * stride, stride, tile.rows, keys, panel_width,
                                 columns, depth, false, scores, score_stride);
        } else {
          // The next panel, a part of it during each tile.
          const E* ahead =
              streams ? keys + panel_width * depth + i * fetched_elements<E>(depth) : nullptr;
          with_rows<Arch>(tile, [&](auto rows) {
            score_panel<Arch, E, rows()>(queries + tile.row * stride, stride, keys, depth, columns,
                                         ahead, scores, score_stride);
          });
        }
      }
    }
    if constexpr (by_matrix_tiles) matrix_tiles_.store();
  }

  /// Masks and weighs the scores, and moves the rows' softmax states on.
  void weigh(const KeyRange& range, Interval keys) {
    AttentionRows& rows = *rows_;
    for (index_t t = 0; t < num_tiles_; ++t) {
      const RowTile& tile = tiles_[t];
      const Interval columns{tile.seen.begin / panel_width * panel_width,
                             round_up(tile.seen.end, group * lane_count)};
      VisibleColumns visible[most_tile_rows<Arch, T>];
      for (index_t i = 0; i < tile.rows; ++i) {
        const index_t row = tile.row + i, token = rows.token(row);
        float* scores = scores_ + row * score_stride;
        visible[i] = mask_row<Arch>(plan_, range, visible_columns(plan_, range, keys, token),
                                    token - rows.block->queries.begin, scores);
        factor_[row] = visible[i].hull.empty()
                           ? 1.0f
                           : rows.state[row].raise(largest_of<Arch>(scores, visible[i].hull));
      }
      for (index_t i = 0; i < tile.rows; ++i) {
        const index_t row = tile.row + i;
        SoftmaxState& state = rows.state[row];
        state.sum +=
            static_cast<double>(weigh_row<Arch, T>(scores_ + row * score_stride, visible[i],
                                                   columns, state.empty() ? 0 : state.reference));
      }
    }
  }

  /// values: of panel p, from the block's first key on
  void add_values(index_t p, const E* values) {
    const AttentionRows& rows = *rows_;
    constexpr index_t weight_stride = score_stride * (sizeof(float) / sizeof(E));
    const index_t width = values_.value_width(p);
    for (index_t i = 0; i < num_tiles_; ++i) {
      const RowTile& tile = tiles_[i];
      const index_t first = tile.seen.begin / panel_width * panel_width;
      const E* weights = reinterpret_cast<const E*>(scores_ + tile.row * score_stride) + first;
      float* output = rows.output + tile.row * padded_ + p * panel_width;
      if constexpr (by_matrix_tiles) {
        alignas(storage_alignment) float products[most_tile_rows<Arch, T> * panel_width];
        matrix_tiles_.multiply(weights, weight_stride, tile.rows, values + first * width, width,
                               width, round_up(tile.seen.end - first, simd::tile_depth), false,
                               products, panel_width);
        matrix_tiles_.store();
        add_scaled<Arch>(products, tile.rows, width, factor_ + tile.row, output, padded_);
      } else {
        with_rows<Arch>(tile, [&](auto tile_rows) {
          for_each_column_tile<Arch>(width, [&](auto vectors, index_t c) {
            add_values_tile<Arch, E, tile_rows(), vectors()>(
                weights, weight_stride, values + first * width + c * depth_group<E>, width,
                round_up(tile.seen.end - first, group), factor_ + tile.row, output + c, padded_);
          });
        });
      }
    }
  }

  const AttentionCall<T>& call_;
  const BlockPlan& plan_;
  const KeyValuePanels<T>& values_;
  index_t key_head_;
  index_t padded_;
  float* outputs_;  ///< of the bundle, a query block each
  float* scores_;   ///< (rows, score_stride)
  float* wide_queries_;
  float* wide_keys_;
  float* wide_values_;
  struct Widened {  ///< what wide_keys_ and wide_values_ hold
    std::int32_t branch = -1;
    index_t slot = 0, count = 0;
  } widened_;
  std::optional<AttentionRows> bundle_[bundle_size];  // made when used: states of 96 rows
  index_t size_ = 0;
  AttentionRows* rows_ = nullptr;  ///< of the bundle, those at work
  float factor_[query_block];
  [[no_unique_address]] std::conditional_t<by_matrix_tiles, simd::MatrixTiles<Arch>, NoMatrixTiles>
      matrix_tiles_;
  RowTile tiles_[query_block];
  index_t num_tiles_ = 0;
};

}  // namespace detail

/// One task: query blocks of the plan, and the query heads that read one key head; writes their
/// rows of output and lse. Tasks are independent. A row that sees no key gets output 0 and lse
/// -inf.
///
/// Canonical arithmetic (docs/design.md): scores are fma chains over channels; per key block the
/// partial output is an fma chain over keys from zero, then output = fma(output, 2^delta, partial).
/// All rows of a query block pass over 64 keys or values while these lie in the L1 cache; their
/// scores stay in the L2 cache, and so does the key block for all rows of a bundle. Each row tile
/// stops at the last key that one of its rows sees.
///
/// **Cost:** 4 D flops per visible (query, key) pair, rounded up to row tiles and vectors.
/// **Error:** 2e-6 of max |v| (tests/attention/test_attention.cpp); bf16: as the same formula with
/// rounded operands and weights, lse within 2^-8 because it is that of the rounded weights. A value
/// that is NaN may reach rows of the same six (by matrix tiles 32) that do not see it (0 * NaN).
/// \param scratch attention_scratch_size<T>(head_dim) floats, aligned to 64 bytes
template <class Arch, class T>
void attend(const AttentionCall<T>& call, const AttentionTask& task, float* scratch) noexcept {
  const index_t group_heads = call.output.extent(1) / call.branches[0].panels.num_heads;
  const simd::FlushSubnormals flush(std::is_same_v<T, bf16>);
  detail::AttentionPass<Arch, T> pass(call, task.key_head, scratch);
  for (index_t b = task.blocks.begin; b < task.blocks.end; ++b) {
    const QueryBlock& block = call.plan->query_blocks[static_cast<std::size_t>(b)];
    // A single query fills a row tile with its heads; keys and values are then read once for all.
    const bool heads_are_rows = block.queries.size() == 1 && group_heads <= query_block;
    for (index_t h = 0; h < group_heads; h += heads_are_rows ? group_heads : 1) {
      if (!pass.takes(block)) pass.run();
      pass.add(block, task.key_head * group_heads + h,
               heads_are_rows ? group_heads : block.queries.size(), heads_are_rows);
    }
  }
  pass.run();
}

}  // namespace ropewalk::inline ROPEWALK_ABI
