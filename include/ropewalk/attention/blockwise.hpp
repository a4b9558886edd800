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
#include "ropewalk/linalg/gemm.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Queries and keys under one rotation; plain RoPE has one branch, position remapping several.
struct AttentionBranch {
  TensorView<const float, 3> queries;  ///< (tokens, H, D), times softmax_scale * log2(e)
  KeyValuePanels panels;               ///< values are read from branch 0
};

/// What attend() reads and writes; the same for all tasks of a layer.
struct AttentionCall {
  std::span<const AttentionBranch> branches;
  const BlockPlan* plan = nullptr;
  TensorView<float, 3> output;  ///< (tokens, H, D); may be the queries' memory of a single branch
  TensorView<float, 2> lse;     ///< (H, tokens), natural log; or empty
};

/// Floats of scratch that attend() needs per worker: scores of a query block, and its outputs.
inline index_t attention_scratch_size(index_t head_dim) {
  return query_block * (score_stride + round_up(head_dim, lane_count));
}

namespace detail {

/// Marks what row `row` does not see of the block [block.begin, block.end) of its segment.
inline VisibleColumns mask_row(const BlockPlan& plan, const KeyRange& range, Interval block,
                               Interval rows, index_t row, float* scores) {
  constexpr float invisible = -std::numeric_limits<float>::infinity();
  Interval columns{0, block.size()};
  if (range.cover == KeyRange::Cover::intervals) {
    const Interval keys = plan.row_keys[static_cast<std::size_t>(row)];
    columns = {std::max<index_t>(keys.begin - block.begin, 0),
               std::min(keys.end - block.begin, block.size())};
    if (columns.empty()) return {};
  }
  const Interval hull{columns.begin / lane_count * lane_count, round_up(columns.end, lane_count)};
  bool masked = hull != columns;
  for (index_t c = hull.begin; c < columns.begin; ++c) scores[c] = invisible;
  for (index_t c = columns.end; c < hull.end; ++c) scores[c] = invisible;
  if (range.cover == KeyRange::Cover::bits) {
    const std::uint64_t* word =
        plan.bits.data() + range.bits + (row - rows.begin) * (key_block / 64);
    masked = true;
    bool any = false;
    for (index_t c = 0; c < block.size(); ++c) {
      const bool visible = word[c / 64] >> (c % 64) & 1u;
      if (!visible) scores[c] = invisible;
      any = any || visible;
    }
    if (!any) return {};
  }
  return {hull, masked};
}

}  // namespace detail

/// One task: query block `block` of the plan, query head `head`; writes its rows of output and lse.
/// Tasks are independent. A row that sees no key gets output 0 and lse -inf.
///
/// Canonical arithmetic (docs/design.md): scores are fma chains over channels; per key block the
/// partial output is an fma chain over keys from zero, then output = fma(output, 2^delta, partial).
///
/// **Cost:** 4 D flops per visible (query, key) pair, diagonal blocks rounded up to panels.
/// **Error:** 2e-6 of max |v| (tests/attention/test_blockwise.cpp).
/// \param scratch attention_scratch_size(head_dim) floats, aligned to 64 bytes
template <class Arch>
void attend(const AttentionCall& call, index_t block, index_t head, float* scratch) noexcept {
  using V = simd::Floats<Arch>;
  const BlockPlan& plan = *call.plan;
  const QueryBlock& task = plan.query_blocks[static_cast<std::size_t>(block)];
  const index_t rows = task.queries.size();
  const index_t key_base = plan.segments[static_cast<std::size_t>(task.segment)].key_base;
  const KeyValuePanels& values = call.branches[0].panels;
  const index_t head_dim = values.head_dim;
  const index_t key_head = head / (call.output.extent(1) / values.num_heads);
  const index_t padded = round_up(head_dim, lane_count);
  float* scores = scratch;                               // (rows, score_stride)
  float* output = scratch + query_block * score_stride;  // (rows, padded)
  SoftmaxState state[query_block];
  float factor[query_block];
  std::fill(output, output + rows * padded, 0.0f);

  for (index_t r = task.ranges.begin; r < task.ranges.end; ++r) {
    const KeyRange& range = plan.ranges[static_cast<std::size_t>(r)];
    const AttentionBranch& branch = call.branches[static_cast<std::size_t>(range.branch)];
    const float* queries = &branch.queries(task.queries.begin, head, 0);
    const index_t query_stride = branch.queries.stride(0);
    for (index_t k = range.keys.begin; k < range.keys.end; k += key_block) {
      const Interval keys{k, std::min(k + key_block, range.keys.end)};
      for (index_t c = 0; c < keys.size(); c += key_panel) {
        multiply_panel<Arch>(
            queries, query_stride, rows, branch.panels.key_panel(key_head, key_base + k + c),
            key_panel,
            head_dim, [&](index_t row, index_t column, V s) __attribute__((always_inline)) {
              s.store(scores + row * score_stride + c + column);
            });
      }
      for (index_t row = 0; row < rows; ++row) {
        float* s = scores + row * score_stride;
        const auto visible =
            detail::mask_row(plan, range, keys, task.queries, task.queries.begin + row, s);
        factor[row] = softmax_row<Arch>(s, visible, keys.size(), state[row]);
      }
      for (index_t p = 0; p < values.num_value_panels(); ++p) {
        multiply_panel<Arch>(
            scores, score_stride, rows, values.value_panel(key_head, p, key_base + k),
            values.value_width(p), keys.size(),
            [&](index_t row, index_t column, V partial) __attribute__((always_inline)) {
              float* o = output + row * padded + p * panel_width + column;
              fma(V::load(o), V(factor[row]), partial).store(o);
            });
      }
    }
  }
  for (index_t row = 0; row < rows; ++row) {
    const index_t token = task.queries.begin + row;
    const V inverse(state[row].empty() ? 0.0f : static_cast<float>(1 / state[row].sum));
    for (index_t c = 0; c < head_dim; c += simd::lanes) {
      (V::load(output + row * padded + c) * inverse)
          .store_part(&call.output(token, head, c), head_dim - c);
    }
    if (!call.lse.empty()) call.lse(head, token) = static_cast<float>(state[row].lse());
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
