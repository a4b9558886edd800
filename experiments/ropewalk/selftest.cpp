// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk selftest`: does this build compute right on this machine, and roughly how fast.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <vector>

#include <fmt/format.h>

#include "ropewalk/rope/adjusted_base.hpp"

#include "args.hpp"
#include "commands.hpp"
#include "kernels.hpp"
#include "measure/attention_input.hpp"
#include "measure/largest_error.hpp"
#include "measure/random_data.hpp"
#include "output.hpp"

namespace cli {

using namespace measure;

namespace {

double real(float x) { return static_cast<double>(x); }

/// What a check found: its error against double arithmetic, in units of what is allowed, and the
/// bits of its results, which must be the same for every instruction set.
struct Finding {
  double error = 0;
  Hasher bits = {};

  void compare(float got, double expected, double allowed) {
    error = worse(error, std::fabs(real(got) - expected) / allowed);
    bits.value(got);
  }
};

// Shapes are odd on purpose: tails of rows, columns and lanes take part.

Finding check_gemm(const KernelTable<float>& kernels) {
  constexpr index_t rows = 23, depth = 131, outputs = 83, ldc = round_up(outputs, lane_count);
  const Buffer<float> a = random_floats(rows * depth, 1);
  const PackedMatrix<float> w = random_matrix(outputs, depth, 2);
  Buffer<float> c(rows * ldc);
  kernels.multiply(a.data(), depth, rows, w, c.data(), ldc);
  kernels.multiply_add(a.data(), depth, rows, w, c.data(), ldc);
  Finding found;
  for (index_t r = 0; r < rows; ++r) {
    for (index_t n = 0; n < outputs; ++n) {
      double sum = 0, size = 0;
      for (index_t k = 0; k < depth; ++k) {
        const double product = real(a[r * depth + k]) * real(w(n, k));
        sum += product;
        size += std::fabs(product);
      }
      // depth roundings of 2^-24 of partial sums, and the final addition.
      found.compare(c[r * ldc + n], 2 * sum, 2 * size * (depth + 2) * 0x1p-24);
    }
  }
  return found;
}

Finding check_rows(const KernelTable<float>& kernels) {
  constexpr index_t rows = 3, size = 75, ld = round_up(size, lane_count);
  const Buffer<float> x = random_floats(rows * ld, 3), weight = random_floats(size, 4);
  Buffer<float> y(rows * ld);
  kernels.rmsnorm(x.data(), ld, rows, size, weight.data(), 1e-5, y.data(), ld);
  Finding found;
  for (index_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (index_t i = 0; i < size; ++i) squares += real(x[r * ld + i]) * real(x[r * ld + i]);
    const double scale = 1 / std::sqrt(squares / size + 1e-5);
    for (index_t i = 0; i < size; ++i) {
      const double expected = real(x[r * ld + i]) * scale * real(weight[i]);
      found.compare(y[r * ld + i], expected, 4 * 0x1p-24 * std::fabs(expected) + 1e-30);
    }
  }
  Buffer<float> gate = random_floats(rows * ld, 5);
  const Buffer<float> before = random_floats(rows * ld, 5), up = random_floats(rows * ld, 6);
  kernels.swiglu(gate.data(), up.data(), ld, rows, ld);
  for (index_t i = 0; i < rows * ld; ++i) {
    const double g = real(before[i]);
    const double expected = g / (1 + std::exp(-g)) * real(up[i]);
    found.compare(gate[i], expected, 8 * 0x1p-24 * std::fabs(expected) + 1e-30);
  }
  return found;
}

Finding check_rotation(const KernelTable<float>& kernels) {
  constexpr index_t pairs = 37;
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 2 * pairs});
  const std::int64_t position[] = {1234567};
  const RotaryRows rows = make_rotary_rows(plan, position);
  const Buffer<float> before = random_floats(2 * pairs, 7);
  Finding found;
  for (const PairLayout layout : {PairLayout::half_split, PairLayout::interleaved}) {
    Buffer<float> x = random_floats(2 * pairs, 7);
    kernels.rotate_head(layout, x.data(), rows.cos.data(), rows.sin.data(), pairs,
                        Rotation::forward);
    for (index_t i = 0; i < pairs; ++i) {
      const bool half = layout == PairLayout::half_split;
      const index_t first = half ? i : 2 * i, second = half ? i + pairs : 2 * i + 1;
      const double u = real(before[first]), v = real(before[second]);
      const double angle = plan.inv_freq[static_cast<std::size_t>(i)] * 1234567;
      const double allowed = 4e-7 * std::hypot(u, v);  // angle 3e-8, two fmas
      found.compare(x[first], u * std::cos(angle) - v * std::sin(angle), allowed);
      found.compare(x[second], v * std::cos(angle) + u * std::sin(angle), allowed);
    }
  }
  return found;
}

Finding check_attention(const KernelTable<float>& kernels) {
  AttentionInput in(137, 4, 2, 20);
  in.attend(kernels.attend);
  Finding found;
  for (const float x : in.output.span()) found.bits.value(x);
  for (index_t t = 0; t < in.tokens; ++t) {
    // Scores up to about 20 in base 2 have an absolute error of 1e-5.
    found.error = worse(found.error, in.error_of_row(t) / 1e-5);
  }
  return found;
}

Finding check_head(const KernelTable<float>& kernels) {
  constexpr index_t rows = 5, size = 48, vocab = 1093;
  const Buffer<float> hidden = random_floats(rows * size, 11);
  const PackedMatrix<float> head = random_matrix(vocab, size, 12);
  const std::vector<TokenId> targets = {0, 511, 512, 1000, vocab - 1};
  std::vector<HeadResult> results(rows);
  Buffer<float> scratch(head_scratch_size);
  kernels.head_nll(hidden.data(), size, targets, head, results, scratch.data());
  Finding found;
  for (index_t r = 0; r < rows; ++r) {
    std::vector<double> score;
    for (index_t n = 0; n < vocab; ++n) {
      double s = 0;
      for (index_t k = 0; k < size; ++k) s += real(hidden[r * size + k]) * real(head(n, k));
      score.push_back(s);
    }
    const auto best = std::max_element(score.begin(), score.end());
    double sum = 0;
    for (const double s : score) sum += std::exp2(s - *best);
    const double expected =
        (*best + std::log2(sum) -
         score[static_cast<std::size_t>(targets[static_cast<std::size_t>(r)])]) *
        std::log(2.0);
    found.compare(static_cast<float>(results[static_cast<std::size_t>(r)].nll), expected, 2e-5);
    found.compare(static_cast<float>(results[static_cast<std::size_t>(r)].argmax),
                  static_cast<double>(best - score.begin()), 0.5);
    found.bits.value(results[static_cast<std::size_t>(r)].nll);
  }
  return found;
}

/// Largest error of cos and sin of RotaryRows at positions up to 2^24, by long double arithmetic.
double angle_error() {
  const FrequencyPlan plan = make_frequency_plan(AdjustedBase{}, {.rotary_dim = 128});
  const Random random{.seed = 1, .stream = 13};
  std::vector<std::int64_t> positions = {0, 1, (1 << 24) - 1};
  for (std::uint64_t i = 0; i < 500; ++i) {
    positions.push_back(static_cast<std::int64_t>(random.bits(i) >> 40));
  }
  const RotaryRows rows = make_rotary_rows(plan, positions);
  double worst = 0;
  for (std::size_t t = 0; t < positions.size(); ++t) {
    for (std::size_t i = 0; i < plan.inv_freq.size(); ++i) {
      const long double angle =
          static_cast<long double>(plan.inv_freq[i]) * static_cast<long double>(positions[t]);
      const auto at = static_cast<std::size_t>(rows.row[t]) * plan.inv_freq.size() + i;
      const auto error = [&worst](float got, long double expected) {
        worst = std::max(worst,
                         static_cast<double>(std::fabs(static_cast<long double>(got) - expected)));
      };
      error(rows.cos[at], std::cos(angle));
      error(rows.sin[at], std::sin(angle));
    }
  }
  return worst;
}

/// Best of several runs within a quarter of a second, in GFLOP/s.
double gflops(double flops, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  double best = 0, total = 0;
  while (total < 0.25) {
    const auto start = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    total += seconds;
    best = std::max(best, flops / seconds / 1e9);
  }
  return best;
}

double gemm_speed(const KernelTable<float>& kernels) {
  constexpr index_t rows = 96, depth = 256, outputs = 512;
  const Buffer<float> a = random_floats(rows * depth, 14);
  const PackedMatrix<float> w = random_matrix(outputs, depth, 15);
  Buffer<float> c(rows * outputs);
  return gflops(2.0 * rows * depth * outputs,
                [&] { kernels.multiply(a.data(), depth, rows, w, c.data(), outputs); });
}

double attention_speed(const KernelTable<float>& kernels) {
  AttentionInput in(768, 1, 1, 64);
  const double n = static_cast<double>(in.tokens);
  return gflops(4 * 64 * n * (n + 1) / 2, [&] { in.attend(kernels.attend); });
}

struct Check {
  const char* name;
  Finding (*run)(const KernelTable<float>&);
};
constexpr Check checks[] = {{"matrix product", check_gemm},
                            {"norm, swiglu", check_rows},
                            {"rotation", check_rotation},
                            {"attention", check_attention},
                            {"head, loss", check_head}};

constexpr double angle_limit = 3.1e-8;

}  // namespace

int run_selftest(Arguments arguments) {
  std::string format = "table";
  Options options("selftest",
                  "Compares every kernel with double arithmetic, and the instruction sets with one "
                  "another bit by bit; measures one thread's speed roughly.",
                  "  ropewalk selftest\n  ropewalk selftest --format jsonl\n");
  options.choice("--format", {"table", "jsonl"}, format, "Form of the output");
  if (!options.parse(arguments)) return 0;

  const std::vector<KernelTable<float>> tables = available_kernels();
  std::vector<std::vector<std::string>> table = {
      {"check", "isa", "error / allowed", "bits", "result"}};
  std::vector<std::string> failures;
  for (const Check& check : checks) {
    const std::uint64_t first_bits = check.run(tables.front()).bits.digest();
    for (const KernelTable<float>& kernels : tables) {
      const Finding found = check.run(kernels);
      const bool same = found.bits.digest() == first_bits;
      const bool accurate = found.error <= 1;  // false for NaN
      if (!same || !accurate) failures.push_back(std::string(check.name) + " " + kernels.isa);
      table.push_back({check.name, kernels.isa, fmt::format("{:.3f}", found.error),
                       same ? "same" : "differ", same && accurate ? "ok" : "FAILED"});
    }
  }
  const double angles = angle_error();
  if (!(angles <= angle_limit)) failures.push_back("angles");
  table.push_back({"angles to 2^24", "any", fmt::format("{:.3f}", angles / angle_limit), "-",
                   angles <= angle_limit ? "ok" : "FAILED"});
  Row row = {{"isa", std::string(tables.front().isa)},
             {"angle_error", angles},
             {"failed", static_cast<std::int64_t>(failures.size())}};
  std::string speeds;
  for (const KernelTable<float>& kernels : tables) {
    const double gemm = gemm_speed(kernels), attention = attention_speed(kernels);
    speeds += fmt::format("{}: gemm {:.1f} GFLOP/s, attention {:.1f} GFLOP/s (one thread)\n",
                          kernels.isa, gemm, attention);
    row.emplace_back(std::string("gemm_gflops_") + kernels.isa, gemm);
    row.emplace_back(std::string("attention_gflops_") + kernels.isa, attention);
  }
  if (format == "jsonl") {
    print(to_json(row) + "\n");
  } else {
    print(fmt::format("isa chosen: {}\n", tables.front().isa) + aligned_table(table) + speeds);
  }
  flush_output();
  if (failures.empty()) return 0;
  fail({.kind = ErrorClass::numeric,
        .where = "selftest",
        .found = fmt::format("{} failed: {}", failures.size(), fmt::join(failures, ", ")),
        .expected = "every check within its limit and the same bits on every instruction set",
        .fix = "Do not trust results of this build; please report the output with ropewalk "
               "--version"});
}

}  // namespace cli
