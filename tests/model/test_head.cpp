// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/model/head.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

struct HeadProblem {
  index_t rows, size, vocab;
  std::vector<float> hidden;
  PackedMatrix<float> head;

  HeadProblem(index_t num_rows, index_t hidden_size, index_t vocab_size, double scale = 1)
      : rows(num_rows),
        size(hidden_size),
        vocab(vocab_size),
        hidden(normal_floats(rows * size, 1, scale)),
        head(vocab_size, hidden_size) {
    const auto w = normal_floats(vocab * size, 2, 1 / std::sqrt(static_cast<double>(size)));
    for (index_t n = 0; n < vocab; ++n) {
      head.set_row(n, {w.data() + n * size, static_cast<std::size_t>(size)});
    }
  }
  template <class Arch>
  std::vector<HeadResult> run(const std::vector<TokenId>& targets) const {
    std::vector<HeadResult> results(targets.size());
    Buffer<float> scratch(head_scratch_size);
    head_nll<Arch>(hidden.data(), size, targets, head, results, scratch.data());
    return results;
  }
};

}  // namespace

TEST_CASE(
    "model/head: loss and prediction agree with logits in double, for every vocabulary size") {
  for_each_arch([]<class Arch>() {
    for (const index_t vocab : {1, 2, 15, 16, 17, 64, 105, 511, 512, 513, 1100}) {
      const HeadProblem p(7, 20, vocab, 3);
      std::vector<TokenId> targets = random_tokens(7, vocab, 5);
      targets[3] = predict_only;
      const auto results = p.run<Arch>(targets);
      for (index_t r = 0; r < p.rows; ++r) {
        double sum = 0, best = -1e30, target = 0, largest = 0;
        TokenId argmax = 0;
        for (index_t n = 0; n < vocab; ++n) {
          double logit = 0;  // the hidden rows count in units of log 2
          for (index_t k = 0; k < p.size; ++k) {
            logit += static_cast<double>(p.hidden[static_cast<std::size_t>(r * p.size + k)]) *
                     static_cast<double>(p.head(n, k));
          }
          logit *= std::log(2.0);
          sum += std::exp(logit);
          largest = std::fmax(largest, std::fabs(logit));
          if (logit > best) best = logit, argmax = static_cast<TokenId>(n);
          if (n == targets[static_cast<std::size_t>(r)]) target = logit;
        }
        const HeadResult& got = results[static_cast<std::size_t>(r)];
        CHECK(got.argmax == argmax);
        if (r == 3) {
          CHECK(std::isnan(got.nll));
        } else {
          const double bound = 2 * 0x1p-24 * (largest + std::fabs(std::log(sum))) + 1e-7;
          CHECK(std::fabs(got.nll - (std::log(sum) - target)) <= 4 * bound);  // chains of 20 terms
        }
      }
    }
  });
}

TEST_CASE("model/head: of equal logits the lowest id is predicted, across blocks too") {
  HeadProblem p(1, 4, 1200);
  std::vector<float> row(4);
  p.head.get_row(700, row);
  std::vector<float> aligned = {3, -1, 2, 1};
  p.hidden = aligned;
  for (float& x : aligned) x *= 10;
  for (const index_t n : {130, 140, 700, 1199}) p.head.set_row(n, aligned);
  CHECK(p.run<simd::native>({predict_only})[0].argmax == 130);
  CHECK(p.run<simd::native>({700})[0].nll == doctest::Approx(std::log(4.0)));
}

TEST_CASE(
    "model/head: a row's result does not depend on the rows beside it or the instruction set") {
  const HeadProblem p(13, 24, 777);
  const auto targets = random_tokens(13, 777, 3);
  const auto all = p.run<simd::portable>(targets);
  for_each_arch([&]<class Arch>() {
    const auto again = p.run<Arch>(targets);
    for (std::size_t r = 0; r < 13; ++r) {
      CHECK(again[r].nll == all[r].nll);
      HeadProblem one(13, 24, 777);
      one.rows = 1;
      one.hidden.assign(p.hidden.begin() + static_cast<index_t>(r) * 24,
                        p.hidden.begin() + static_cast<index_t>(r + 1) * 24);
      CHECK(one.run<Arch>({targets[r]})[0].nll == all[r].nll);
    }
  });
}
