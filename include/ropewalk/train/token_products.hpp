// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The products of a pass of training: their operands, tiles, tasks and runs of rows.

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "ropewalk/core/executor.hpp"
#include "ropewalk/model/forward_buffers.hpp"
#include "ropewalk/train/training_kernels.hpp"

namespace ropewalk::inline ROPEWALK_ABI::detail {

/// Rows of an operand of a product.
template <class T>
struct OperandRows {
  const T* data;
  index_t ld;
};

/// dW += dY^T X of some panels of a matrix, as a task.
template <class T>
struct WeightGradientTask {
  OperandRows<T> x;
  const float* dy;  // of the panels
  index_t lddy;
  PackedMatrix<float>* gradient;
  Interval panels;

  index_t cost() const { return gradient->inputs() * panels.size(); }
};

/// Runs of rows that sums over tokens take at once, given how many rows there are up to the end of
/// each segment: all of them, or, where rows are taken in groups, up to each segment that leaves a
/// part of one. So a segment's groups are the same whatever is before it in the batch.
inline std::vector<Interval> runs_of_groups(std::span<const index_t> ends, index_t group) {
  std::vector<Interval> runs;
  index_t begin = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (ends[i] == begin) continue;
    if ((ends[i] - begin) % group == 0 && i + 1 < ends.size()) continue;
    runs.push_back({begin, ends[i]});
    begin = ends[i];
  }
  return runs;
}

/// Products over the tokens of a batch, by tiles of tokens or as tasks of gradients. Operands of
/// floats are rounded to T first.
template <class T>
class TokenProducts {
 public:
  TokenProducts(const TrainingKernels<T>& kernels, const Executor& executor)
      : kernels_(kernels), executor_(executor) {}

  /// Rows of floats as a product takes them: themselves, or rounded to T, in `rounded` with rows
  /// as spread_stride().
  OperandRows<T> operand(const float* x, index_t ldx, index_t rows, index_t size,
                         [[maybe_unused]] void* rounded) const {
    if constexpr (std::is_same_v<T, float>) {
      return {x, ldx};
    } else {
      const index_t ld = spread_stride<T>(size);
      kernels_.round_rows(x, ldx, rows, size, static_cast<T*>(rounded), ld);
      return {static_cast<T*>(rounded), ld};
    }
  }
  /// y = x W^T of rows of floats. rounded: memory for them as operands.
  void multiply(const float* x, index_t ldx, index_t rows, const PackedMatrix<T>& w, float* y,
                index_t ldy, float* rounded) const {
    const OperandRows<T> taken = operand(x, ldx, rows, w.inputs(), rounded);
    kernels_.forward.multiply(taken.data, taken.ld, rows, w, y, ldy);
  }
  /// y = r + x W^T; r has y's row stride, and may be y.
  void add_product(const float* x, index_t ldx, index_t rows, const PackedMatrix<T>& w,
                   const float* r, float* y, index_t ldy, float* rounded) const {
    const OperandRows<T> taken = operand(x, ldx, rows, w.inputs(), rounded);
    kernels_.forward.multiply_add(taken.data, taken.ld, rows, w, r, y, ldy);
  }
  /// f(rows, worker) for tiles of `count` rows.
  template <class F>
  void for_each_tile(index_t count, F&& f) const {
    const index_t size = balanced_tile<T>(count, executor_.workers(), head_rows);
    for_each_in_runs(executor_, (count + size - 1) / size, [&](index_t tile, index_t worker) {
      f(Interval{tile * size, std::min(count, (tile + 1) * size)}, worker);
    });
  }

  /// dy: (tokens, outputs of the panels)
  void add_tasks(OperandRows<T> x, const float* dy, index_t lddy, PackedMatrix<float>& gradient,
                 Interval panels) {
    for (index_t j = panels.begin; j < panels.end; j += gradient_panels) {
      tasks_.push_back({x,
                        dy + (j - panels.begin) * panel_width,
                        lddy,
                        &gradient,
                        {j, std::min(j + gradient_panels, panels.end)}});
    }
  }
  void add_tasks(OperandRows<T> x, const float* dy, index_t lddy, PackedMatrix<float>& gradient) {
    add_tasks(x, dy, lddy, gradient, {0, gradient.num_panels()});
  }
  /// Does the tasks over some runs of tokens, the longest first.
  void add_weight_gradients(std::span<const Interval> runs) {
    const index_t workers = executor_.workers();
    if (workers > 1 && std::ssize(tasks_) < 4 * workers) take_panels_apart();
    std::ranges::stable_sort(tasks_, std::greater<>(), &WeightGradientTask<T>::cost);
    for_each_dealt(executor_, static_cast<index_t>(tasks_.size()), [&](index_t i, index_t) {
      const WeightGradientTask<T>& t = tasks_[static_cast<std::size_t>(i)];
      for (const Interval& run : runs) {
        kernels_.add_weight_gradient(t.x.data + run.begin * t.x.ld, t.x.ld,
                                     t.dy + run.begin * t.lddy, t.lddy, run.size(), *t.gradient,
                                     t.panels);
      }
    });
    tasks_.clear();
  }

 private:
  /// A task per panel: slower, but few large tasks leave workers without work.
  void take_panels_apart() {
    const std::size_t count = tasks_.size();
    for (std::size_t i = 0; i < count; ++i) {
      while (tasks_[i].panels.size() > 1) {
        WeightGradientTask<T> last = tasks_[i];
        last.panels.begin = --tasks_[i].panels.end;
        last.dy += tasks_[i].panels.size() * panel_width;
        tasks_.push_back(last);
      }
    }
  }

  const TrainingKernels<T>& kernels_;
  const Executor& executor_;
  std::vector<WeightGradientTask<T>> tasks_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI::detail
