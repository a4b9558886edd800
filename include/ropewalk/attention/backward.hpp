// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The gradient of blockwise attention, from the log-sum-exp that the forward pass left.

#include <algorithm>

#include "ropewalk/attention/backward_block.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// The gradients of a segment under one key head.
template <class Arch, class T>
class BackwardPass {
  using V = simd::Floats<Arch>;
  using Block = BackwardBlock<Arch, T>;

 public:
  BackwardPass(const AttentionGradientCall<T>& call, index_t segment, index_t key_head,
               float* scratch)
      : call_(call),
        plan_(*call.plan),
        segment_(plan_.segments[static_cast<std::size_t>(segment)]),
        segment_index_(segment),
        key_head_(key_head),
        head_dim_(call.values.head_dim),
        block_(plan_, head_dim_, scratch) {}

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
    const auto for_each_d_queries = [&](auto f) {
      for (const auto& branch : call_.branches) {
        for (index_t t = block.queries.begin; t < block.queries.end; ++t) {
          f(&branch.d_queries(t, h, 0));
        }
      }
    };
    for_each_d_queries([&](float* row) { clear(row); });
    block_.begin(call_, block, h);
    std::int32_t taken = -1;
    for (index_t i = block.ranges.begin; i < block.ranges.end; ++i) {
      const KeyRange& range = plan_.ranges[static_cast<std::size_t>(i)];
      const auto& branch = call_.branches[static_cast<std::size_t>(range.branch)];
      if (range.branch != taken) block_.take_queries(branch.queries);
      taken = range.branch;
      for (index_t k = range.keys.begin; k < range.keys.end; k += backward_keys) {
        const Interval keys{k, std::min(k + backward_keys, range.keys.end)};
        if (!block_.look_at(range, keys)) continue;
        const index_t slot = segment_.key_base + k;
        block_.weigh(branch.keys.key_panel(key_head_, slot),
                     call_.values.key_panel(key_head_, slot), products_);
        add_d_queries(branch, slot, &branch.d_queries(block.queries.begin, h, 0));
        add_over_rows(keys, block_.weights_and_d_output(), call_.d_values);
        add_over_rows(keys, block_.d_scores_and_queries(), branch.d_keys);
      }
    }
    for_each_d_queries([&](float* row) { to_natural(row); });
  }

  /// d_queries, from the block's first row on, += d_scores x keys.
  void add_d_queries(const AttentionGradientBranch<T>& branch, index_t slot, float* d_queries) {
    const index_t stride = branch.d_queries.stride(0);
    for (index_t p = 0; p < branch.keys.num_value_panels(); ++p) {
      const index_t width = branch.keys.value_width(p), channel = p * panel_width;
      const T* keys = branch.keys.value_panel(key_head_, p, slot);
      for (const RowTile& tile : block_.tiles()) {
        const index_t first = tile.seen.begin / Block::together * Block::together;
        products_.add(
            block_.d_scores(tile.row) + first, {backward_stride, depth_group<T>}, tile.rows,
            keys + first * width, width, round_up(tile.seen.end - first, Block::together),
            d_queries + tile.row * stride + channel, stride, std::min(head_dim_ - channel, width));
      }
    }
    products_.store();
  }

  /// Rows of `to`, one a key, += left^T right, over the rows that see some of a tile's keys.
  void add_over_rows(Interval keys, const typename Block::OverRows& with,
                     const TensorView<float, 3>& to) {
    for_each_tile_of_rows<Arch, T>(keys.size(), [&](index_t key, index_t count) {
      const Interval rows = block_.rows_that_see({key, key + count});
      if (rows.empty()) return;
      for (index_t channel = 0; channel < head_dim_; channel += panel_width) {
        products_.add(with.left_from(rows.begin, key), with.left_strides, count,
                      with.right_from(rows.begin, channel), with.padded, rows.size(),
                      &to(segment_.queries.begin + keys.begin + key, key_head_, channel),
                      to.stride(0), std::min(head_dim_ - channel, panel_width));
      }
    });
    products_.store();
  }

  const AttentionGradientCall<T>& call_;
  const BlockPlan& plan_;
  const Segment& segment_;
  index_t segment_index_;
  index_t key_head_;
  index_t head_dim_;
  Block block_;
  typename Block::Products products_;
};

}  // namespace detail

/// Floats of scratch that attend_backward() needs per worker.
template <class T>
index_t attend_backward_scratch_size(index_t head_dim) {
  return detail::BackwardScratch<T>{head_dim}.size();
}

/// One task: the rows of a segment (without a past) and the query heads that read key head
/// `key_head`. Writes their rows of d_queries, d_keys and d_values. Tasks are independent.
///
/// With s = q k in base-2 units, P = 2^(s - lse), delta = sum_c dO O (arXiv:2307.08691, section
/// 3.1; delta is arXiv:2205.14135's):
///
///     dV = P^T dO,   dS = P (dO V^T - delta),   dQ = ln 2 dS K,   dK = ln 2 dS^T Q
///
/// For bf16, dO is rounded first, P and dS as operands of products; delta and dS are made of the
/// rounded dO and O, and of P before it is rounded.
///
/// Canonical arithmetic: each element is one fma chain, dQ over keys ascending, dK and dV over the
/// heads of the group and their queries ascending; for bf16 over pairs of keys, or of queries, from
/// the segment's first ones on, the odd one first; by matrix tiles over groups of 32 of them
/// (simd/matrix_tiles.hpp). What is not visible adds zeros.
///
/// **Cost:** 10 D flops per visible (query, key) pair and head, rounded up to row tiles and
/// vectors.
/// **Error:** 2e-6 of the largest element; of bf16 some 2^-9 of the terms
/// (tests/attention/test_attend_backward.cpp).
/// \param scratch attend_backward_scratch_size<T>(head_dim) floats, aligned to 64 bytes
template <class Arch, class T>
void attend_backward(const AttentionGradientCall<T>& call, index_t segment, index_t key_head,
                     float* scratch) noexcept {
  const simd::FlushSubnormals flush(depth_group<T> == 2);
  detail::BackwardPass<Arch, T>(call, segment, key_head, scratch).run();
}

}  // namespace ropewalk::inline ROPEWALK_ABI
