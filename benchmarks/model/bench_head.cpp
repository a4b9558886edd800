// SPDX-License-Identifier: Apache-2.0
/// \file
/// The output matrix with loss and argmax on a tile of 96 positions; shapes C channels, V tokens.

#include <algorithm>
#include <cmath>

#include "ropewalk/model/head.hpp"

#include "harness.hpp"
#include "measure/random_data.hpp"

namespace bench {
namespace {

struct Head {
  Buffer<float> hidden;  ///< (head_rows, C), carrying log2(e)
  PackedMatrix<float> matrix;
  std::vector<TokenId> targets;
  std::vector<HeadResult> results{static_cast<std::size_t>(head_rows)};
  Buffer<float> scratch{head_scratch_size};

  Head(index_t channels, index_t vocab)
      : hidden(random_floats(head_rows * channels, 1, log2_e)),
        matrix(random_matrix(vocab, channels, 2, 1 / std::sqrt(static_cast<double>(channels)))),
        targets(random_ids(head_rows, vocab, 3)) {}
  void run() {
    head_nll<simd::native>(hidden.data(), matrix.inputs(), targets, matrix, results,
                           scratch.data());
  }
  std::string fault() {
    run();
    const index_t channels = matrix.inputs(), vocab = matrix.outputs();
    Buffer<float> row(channels);
    std::vector<double> score[2];  // of the first and the last position, base 2
    for (index_t n = 0; n < vocab; ++n) {
      matrix.get_row(n, row.span());
      for (const index_t p : {index_t{0}, index_t{1}}) {
        const float* h = hidden.data() + p * (head_rows - 1) * channels;
        double sum = 0;
        for (index_t k = 0; k < channels; ++k) {
          sum += static_cast<double>(h[k]) * static_cast<double>(row[k]);
        }
        score[p].push_back(sum);
      }
    }
    double worst = 0;
    for (const std::size_t p : {std::size_t{0}, std::size_t{1}}) {
      const std::size_t r = p * (head_rows - 1);
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
    return {.flops = 2.0 * static_cast<double>(head_rows) * static_cast<double>(matrix.inputs()) *
                     static_cast<double>(matrix.outputs())};
  }
};

bool add_all() {
  for (const auto& [channels, vocab] :
       {std::pair<index_t, index_t>{256, 4096}, {512, 8192}, {2048, 65029}}) {
    add("model/head_nll/C" + std::to_string(channels) + "/V" + std::to_string(vocab) + "/f32",
        [channels = channels, vocab = vocab] { return Head(channels, vocab); });
  }
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
