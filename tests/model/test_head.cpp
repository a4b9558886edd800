// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/model/head.hpp"
#include "ropewalk/model/token_batch.hpp"

#include "support/arches.hpp"
#include "support/random.hpp"

using namespace ropewalk;

namespace {

/// Hidden rows and a head of random numbers that T holds exactly.
template <class T>
struct HeadProblem {
  index_t rows, size, vocab;
  PackedMatrix<T> head;
  std::vector<T> hidden;  ///< (rows, head.depth())

  HeadProblem(index_t num_rows, index_t hidden_size, index_t vocab_size, double scale = 1)
      : rows(num_rows),
        size(hidden_size),
        vocab(vocab_size),
        head(vocab_size, hidden_size),
        hidden(static_cast<std::size_t>(rows * head.depth())) {
    const auto x = normal_floats(rows * size, 1, scale);
    const auto w = normal_floats(vocab * size, 2, 1 / std::sqrt(static_cast<double>(size)));
    for (index_t r = 0; r < rows; ++r) {
      set_hidden(r, {x.data() + r * size, static_cast<std::size_t>(size)});
    }
    for (index_t n = 0; n < vocab; ++n) {
      set_output(n, {w.data() + n * size, static_cast<std::size_t>(size)});
    }
  }
  void set_hidden(index_t r, std::span<const float> values) {
    for (index_t k = 0; k < size; ++k) {
      hidden_at(r, k) = simd::rounded_to<T>(values[static_cast<std::size_t>(k)]);
    }
  }
  void set_output(index_t n, std::span<const float> values) {
    for (index_t k = 0; k < size; ++k) {
      head(n, k) = simd::rounded_to<T>(values[static_cast<std::size_t>(k)]);
    }
  }
  T& hidden_at(index_t r, index_t k) {
    return hidden[static_cast<std::size_t>(r * head.depth() + k)];
  }
  double hidden_at(index_t r, index_t k) const {
    const T x = hidden[static_cast<std::size_t>(r * head.depth() + k)];
    return static_cast<double>(to_float(x));
  }
  template <class Arch>
  std::vector<HeadResult> run(const std::vector<TokenId>& targets, index_t first = 0) const {
    std::vector<HeadResult> results(targets.size());
    head_nll<Arch>(hidden.data() + first * head.depth(), head.depth(), targets, head, results);
    return results;
  }
};

template <class T, class Sums = SumsOfPairs>
void check_against_double(index_t rows, index_t size, index_t vocab) {
  CAPTURE(rows);
  CAPTURE(vocab);
  const HeadProblem<T> p(rows, size, vocab, 3);
  std::vector<TokenId> targets = random_tokens(rows, vocab, 5);
  if (rows > 3) targets[3] = predict_only;
  targets.back() = static_cast<TokenId>(vocab - 1);
  for_each_arch<Sums>([&]<class Arch>() {
    const auto results = p.template run<Arch>(targets);
    for (index_t r = 0; r < rows; ++r) {
      double sum = 0, best = -1e30, target = 0, largest = 0;
      TokenId argmax = 0;
      for (index_t n = 0; n < vocab; ++n) {
        double logit = 0;  // the hidden rows count in units of log 2
        for (index_t k = 0; k < p.size; ++k) {
          logit += p.hidden_at(r, k) * static_cast<double>(to_float(p.head(n, k)));
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
  });
}

template <class T, class Sums = SumsOfPairs>
void check_ties() {
  HeadProblem<T> p(1, 4, 1200);
  const std::vector<float> aligned = {3, -1, 2, 1}, tenfold = {30, -10, 20, 10};
  p.set_hidden(0, aligned);
  for (const index_t n : {130, 140, 700, 1199}) p.set_output(n, tenfold);
  for_each_arch<Sums>([&]<class Arch>() {
    CHECK(p.template run<Arch>({predict_only})[0].argmax == 130);
    CHECK(p.template run<Arch>({700})[0].nll == doctest::Approx(std::log(4.0)));
  });
  HeadProblem<T> zeros(3, 4, 37);
  for (index_t n = 0; n < 37; ++n) zeros.set_output(n, std::vector<float>(4, 0.0f));
  for_each_arch<Sums>([&]<class Arch>() {
    for (const HeadResult& r : zeros.template run<Arch>({0, 36, predict_only})) {
      CHECK(r.argmax == 0);
      if (!std::isnan(r.nll)) CHECK(r.nll == doctest::Approx(std::log(37.0)).epsilon(1e-9));
    }
  });
}

template <class T, class Sums = SumsOfPairs>
void check_bits() {
  const HeadProblem<T> p(13, 25, 777);
  const auto targets = random_tokens(13, 777, 3);
  const auto all = p.template run<typename Sums::Reference>(targets);
  for_each_arch<Sums>([&]<class Arch>() {
    const auto again = p.template run<Arch>(targets);
    for (std::size_t r = 0; r < 13; ++r) {
      CHECK(again[r].nll == all[r].nll);
      CHECK(again[r].argmax == all[r].argmax);
      CHECK(p.template run<Arch>({targets[r]}, static_cast<index_t>(r))[0].nll == all[r].nll);
    }
  });
}

template <class T>
HeadProblem<T> make_problem() {
  return {7, 20, 600};
}

template <class T, class Sums = SumsOfPairs>
void check_not_finite() {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::vector<TokenId> targets = {5, 6, 7, 8, 9, 10, 11};
  const HeadProblem<T> whole = make_problem<T>();
  for_each_arch<Sums>([&]<class Arch>() {
    const auto before = whole.template run<Arch>(targets);
    for (const float broken : {nan, infinity}) {
      HeadProblem<T> p = make_problem<T>();
      p.hidden_at(4, 11) = simd::rounded_to<T>(broken);
      const auto one_row = p.template run<Arch>(targets);
      for (std::size_t r = 0; r < 7; ++r) {
        if (r == 4) {
          CHECK(std::isnan(one_row[r].nll));
        } else {
          CHECK(one_row[r].nll == before[r].nll);
          CHECK(one_row[r].argmax == before[r].argmax);
        }
      }
    }
    // A token whose logit is NaN, wherever it lies in its vector, makes the sum so for every row.
    for (const index_t n : {0, 5, 15, 16, 530, 599}) {
      HeadProblem<T> p = make_problem<T>();
      p.head(n, 3) = simd::rounded_to<T>(nan);
      for (const HeadResult& r : p.template run<Arch>(targets)) CHECK(std::isnan(r.nll));
    }
    // Logits beyond what a score may be are an overflow, whatever their sign.
    HeadProblem<T> p = make_problem<T>();
    for (index_t k = 0; k < p.size; ++k) p.hidden_at(2, k) = simd::rounded_to<T>(1e30f);
    CHECK(std::isnan(p.template run<Arch>(targets)[2].nll));
  });
}

}  // namespace

TEST_CASE(
    "model/head: loss and prediction agree with logits in double, for every vocabulary size") {
  for (const index_t vocab : {1, 2, 15, 16, 17, 64, 105, 511, 512, 513, 1100}) {
    check_against_double<float>(7, 20, vocab);
    check_against_double<bf16>(7, vocab % 2 == 0 ? 20 : 19, vocab);
    check_against_double<bf16, SumsOfTiles>(7, vocab % 2 == 0 ? 20 : 19, vocab);
  }
  for (const index_t rows : {1, 2, 3, 5, 12, 13, 96}) {
    check_against_double<float>(rows, 20, 100);
    check_against_double<bf16>(rows, 20, 100);
    check_against_double<bf16, SumsOfTiles>(rows, 20, 100);
  }
}

TEST_CASE("model/head: of equal logits the lowest id is predicted, across blocks too") {
  check_ties<float>();
  check_ties<bf16>();
  check_ties<bf16, SumsOfTiles>();
}

TEST_CASE(
    "model/head: a row's result does not depend on the rows beside it or the instruction set") {
  check_bits<float>();
  check_bits<bf16>();
  check_bits<bf16, SumsOfTiles>();
}

TEST_CASE("model/head: NaN and infinity make the loss NaN, of their rows only") {
  check_not_finite<float>();
  check_not_finite<bf16>();
  check_not_finite<bf16, SumsOfTiles>();
}
