// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Blockwise attention with online softmax, over a BlockPlan and key/value panels.

#include <cmath>
#include <optional>
#include <span>

#include "ropewalk/attention/matrix_tile_steps.hpp"
#include "ropewalk/attention/row_tile_steps.hpp"
#include "ropewalk/core/executor.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What one call of attend() does: query blocks, and the heads that read one key head.
struct AttentionTask {
  Interval blocks;  ///< in BlockPlan::query_blocks
  index_t key_head = 0;
};

/// Floats of scratch that attend() needs per worker.
template <class T>
index_t attention_scratch_size(index_t head_dim) {
  const detail::AttentionScratch s{head_dim};
  const index_t wide = std::is_same_v<T, bf16> ? s.rows() : 0;
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

/// A bundle of query rows that read one key head, on its way over the key blocks.
template <class Arch, class T>
class AttentionPass {
  using V = simd::Floats<Arch>;
  using Steps = std::conditional_t<simd::takes_matrix_tiles<Arch, T>, MatrixTileSteps<Arch, T>,
                                   RowTileSteps<Arch, T>>;

 public:
  AttentionPass(const AttentionCall<T>& call, index_t key_head, float* scratch)
      : call_(call),
        plan_(*call.plan),
        key_head_(key_head),
        head_dim_(call.branches[0].panels.head_dim),
        padded_(AttentionScratch{head_dim_}.padded()),
        outputs_(scratch + AttentionScratch{head_dim_}.scores()),
        steps_(head_dim_, scratch, outputs_ + bundle_size * AttentionScratch{head_dim_}.rows()) {}

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
        if (range.keys.begin > k || part.empty()) return;
        steps_.add(AttentionBlock<T>{call_, *rows_, range, part, key_head_});
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

  /// Divides by the sums and writes the rows of output and lse.
  void finish(const AttentionRows& rows) const {
    for (index_t row = 0; row < rows.count; ++row) {
      const index_t token = rows.token(row), head = rows.head(row);
      const SoftmaxState& state = rows.state[row];
      const V inverse(state.empty() ? 0.0f : static_cast<float>(1 / state.sum));
      T* out = &call_.output(token, head, 0);
      for (index_t c = 0; c < head_dim_; c += simd::lanes) {
        simd::store_rounded_part<Arch>(out + c, V::load(rows.output + row * padded_ + c) * inverse,
                                       head_dim_ - c);
      }
      if (!call_.lse.empty()) call_.lse(head, token) = state.rounded_lse();
    }
  }

  const AttentionCall<T>& call_;
  const BlockPlan& plan_;
  index_t key_head_;
  index_t head_dim_;
  index_t padded_;
  float* outputs_;  ///< of the bundle, a query block each
  Steps steps_;
  std::optional<AttentionRows> bundle_[bundle_size];  // made when used: states of 96 rows
  index_t size_ = 0;
  AttentionRows* rows_ = nullptr;  ///< of the bundle, those at work
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
