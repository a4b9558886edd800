// SPDX-License-Identifier: Apache-2.0
/// \file
/// The output matrix with loss and argmax on a tile of 96 positions a thread; shapes C channels, V
/// tokens.

#include <algorithm>
#include <cmath>

#include "ropewalk/model/head.hpp"

#include "harness.hpp"
#include "measure/random_data.hpp"

namespace bench {
namespace {

template <class T>
struct Head {
  Threads threads;
  index_t rows, stride;
  Buffer<T> hidden;  ///< (rows, C), carrying log2(e)
  PackedMatrix<T> matrix;
  std::vector<TokenId> targets;
  std::vector<HeadResult> results;

  Head(index_t channels, index_t vocab, index_t thread_count)
      : threads(thread_count),
        rows(head_rows * thread_count),
        stride(spread_stride<T>(channels)),
        hidden(random_buffer<T>(rows * stride, 1, log2_e)),
        matrix(random_matrix<T>(vocab, channels, 2, 1 / std::sqrt(static_cast<double>(channels)))),
        targets(random_ids(rows, vocab, 3)),
        results(static_cast<std::size_t>(rows)) {}
  void run(const Executor& executor) {
    for_each_in_runs(executor, rows / head_rows, [&](index_t tile, index_t) {
      const auto first = static_cast<std::size_t>(tile * head_rows);
      constexpr auto count = static_cast<std::size_t>(head_rows);
      with_instructions<T>([&]<class Arch>() {
        head_nll<Arch>(hidden.data() + tile * head_rows * stride, stride,
                       std::span<const TokenId>(targets).subspan(first, count), matrix,
                       std::span(results).subspan(first, count));
      });
    });
  }
  std::string fault() {
    run(threads.executor());
    const index_t channels = matrix.inputs(), vocab = matrix.outputs();
    Buffer<float> row(channels);
    std::vector<double> score[2];  // of the first and the last position, base 2
    for (index_t n = 0; n < vocab; ++n) {
      matrix.get_row(n, row.span());
      for (const index_t p : {index_t{0}, index_t{1}}) {
        const T* h = hidden.data() + p * (rows - 1) * stride;
        double sum = 0;
        for (index_t k = 0; k < channels; ++k) {
          sum += static_cast<double>(to_float(h[k])) * static_cast<double>(row[k]);
        }
        score[p].push_back(sum);
      }
    }
    double worst = 0;
    for (const std::size_t p : {std::size_t{0}, std::size_t{1}}) {
      const std::size_t r = p * static_cast<std::size_t>(rows - 1);
      const auto best = std::max_element(score[p].begin(), score[p].end());
      double sum = 0;
      for (const double s : score[p]) sum += std::exp2(s - *best);
      const double target = score[p][static_cast<std::size_t>(targets[r])];
      const double expected = (*best + std::log2(sum) - target) * std::log(2.0);
      worst = worse(worst, std::fabs(results[r].nll - expected));
      // Another argmax only where the two are equal up to rounding.
      const double chosen = score[p][static_cast<std::size_t>(results[r].argmax)];
      worst = worse(worst, *best - chosen);
    }
    return fault_of(worst, 2e-5);  // logits of size 10, chains of 2048
  }
  Work work() const {
    return {.flops = 2.0 * static_cast<double>(rows) * static_cast<double>(matrix.inputs()) *
                     static_cast<double>(matrix.outputs()),
            .executor = threads.executor(),
            .bf16s = std::is_same_v<T, bf16>};
  }
};

template <class T>
void add_dtype() {
  for (const auto& [channels, vocab] :
       {std::pair<index_t, index_t>{256, 4096}, {256, 32000}, {512, 8192}, {2048, 65029}}) {
    for (const index_t threads : {1, 2}) {
      if (threads == 2 && vocab < 32000) continue;
      add("model/head_nll/C" + std::to_string(channels) + "/V" + std::to_string(vocab) + "/" +
              dtype_and_threads<T>(threads),
          [=, channels = channels, vocab = vocab] { return Head<T>(channels, vocab, threads); });
    }
  }
}

bool add_all() {
  add_dtype<float>();
  add_dtype<bf16>();
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
