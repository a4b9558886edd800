// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk selftest`: does this build compute right on this machine, and roughly how fast.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <string>
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

template <class T>
double real(T x) {
  return static_cast<double>(to_float(x));
}

/// Half a unit in the last place of results that are stored as T, relative.
template <class T>
constexpr double stored_error = std::is_same_v<T, bf16> ? 0x1p-8 : 0;

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

// Shapes are odd on purpose: tails of rows, columns and lanes take part. Operands are rounded to T
// before both computations.

/// The left operand of a product: rows padded with zeros to `stride`.
template <class T>
Buffer<T> random_rows(index_t rows, index_t depth, index_t stride, std::uint32_t stream) {
  const Buffer<T> packed = random_buffer<T>(rows * depth, stream);
  Buffer<T> out(rows * stride);
  for (index_t r = 0; r < rows; ++r) {
    std::copy_n(packed.data() + r * depth, depth, out.data() + r * stride);
  }
  return out;
}

/// An element of a product in double, and the sum of its terms' sizes.
struct ExactSum {
  double value = 0, size = 0;
};
template <class T>
ExactSum exact_product(const T* row, const PackedMatrix<T>& w, index_t output) {
  ExactSum sum;
  for (index_t k = 0; k < w.inputs(); ++k) {
    const double product = real(row[k]) * real(w(output, k));
    sum.value += product;
    sum.size += std::fabs(product);
  }
  return sum;
}

template <class T>
Finding check_gemm(const KernelTable<T>& kernels) {
  constexpr index_t rows = 23, depth = 131, outputs = 83, ldc = round_up(outputs, lane_count);
  constexpr index_t lda = round_up(depth, depth_group<T>);
  const Buffer<T> a = random_rows<T>(rows, depth, lda, 1);
  const PackedMatrix<T> w = random_matrix<T>(outputs, depth, 2);
  Buffer<float> c(rows * ldc);
  kernels.multiply(a.data(), lda, rows, w, c.data(), ldc);
  kernels.multiply_add(a.data(), lda, rows, w, c.data(), c.data(), ldc);
  Finding found;
  for (index_t r = 0; r < rows; ++r) {
    for (index_t n = 0; n < outputs; ++n) {
      const ExactSum sum = exact_product(a.data() + r * lda, w, n);
      // depth roundings of 2^-24 of partial sums, and the final addition.
      found.compare(c[r * ldc + n], 2 * sum.value, 2 * sum.size * (depth + 2) * 0x1p-24);
    }
  }
  return found;
}

template <class T>
Finding check_rows(const KernelTable<T>& kernels) {
  constexpr index_t rows = 3, size = 75, ld = round_up(size, lane_count);
  const Buffer<float> x = random_floats(rows * ld, 3), weight = random_floats(size, 4);
  Buffer<T> y(rows * ld);
  kernels.rmsnorm(x.data(), ld, rows, size, weight.data(), 1e-5, 1.0f, y.data(), ld);
  Finding found;
  for (index_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (index_t i = 0; i < size; ++i) squares += real(x[r * ld + i]) * real(x[r * ld + i]);
    const double scale = 1 / std::sqrt(squares / size + 1e-5);
    for (index_t i = 0; i < size; ++i) {
      const double expected = real(x[r * ld + i]) * scale * real(weight[i]);
      found.compare(to_float(y[r * ld + i]), expected,
                    (4 * 0x1p-24 + stored_error<T>)*std::fabs(expected) + 1e-30);
    }
  }
  return found;
}

template <class T>
Finding check_swiglu(const KernelTable<T>& kernels) {
  constexpr index_t rows = 11, depth = 45, outputs = 83, ldo = round_up(outputs, lane_count);
  constexpr index_t lda = round_up(depth, depth_group<T>);
  const double deviation = 1 / std::sqrt(static_cast<double>(depth));
  const Buffer<T> a = random_rows<T>(rows, depth, lda, 5);
  const PackedMatrix<T> gate = random_matrix<T>(outputs, depth, 6, deviation);
  const PackedMatrix<T> up = random_matrix<T>(outputs, depth, 16, deviation);
  Buffer<T> out(rows * ldo);
  kernels.multiply_swiglu(a.data(), lda, rows, gate, up, out.data(), ldo);
  Finding found;
  for (index_t r = 0; r < rows; ++r) {
    for (index_t n = 0; n < outputs; ++n) {
      const ExactSum g = exact_product(a.data() + r * lda, gate, n);
      const ExactSum u = exact_product(a.data() + r * lda, up, n);
      const double silu = g.value / (1 + std::exp(-g.value)), expected = silu * u.value;
      // Both products as in check_gemm; |silu'| <= 1.1; 8 roundings of silu and the product.
      const double sums =
          depth * 0x1p-24 * (1.1 * g.size * std::fabs(u.value) + std::fabs(silu) * u.size);
      found.compare(to_float(out[r * ldo + n]), expected,
                    sums + (8 * 0x1p-24 + stored_error<T>)*std::fabs(expected) + 1e-30);
    }
  }
  return found;
}

template <class T>
Finding check_rotation(const KernelTable<T>& kernels) {
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

template <class T>
Finding check_attention(const KernelTable<T>& kernels) {
  AttentionInput<T> in(137, 4, 2, 20);
  in.attend(kernels.attend);
  Finding found;
  for (const T x : in.output.span()) found.bits.value(to_float(x));
  for (index_t t = 0; t < in.tokens; ++t) {
    // Scores up to about 20 in base 2 have an absolute error of 1e-5. Weights are rounded to T for
    // their sum and for the products with the values, and so is the output.
    found.error = worse(found.error, in.error_of_row(t) / (1e-5 + 3 * stored_error<T>));
  }
  return found;
}

template <class T>
Finding check_head(const KernelTable<T>& kernels) {
  constexpr index_t rows = 5, size = 48, vocab = 1093;
  const Buffer<T> hidden = random_buffer<T>(rows * size, 11);
  const PackedMatrix<T> head = random_matrix<T>(vocab, size, 12);
  const std::vector<TokenId> targets = {0, 511, 512, 1000, vocab - 1};
  std::vector<HeadResult> results(rows);
  kernels.head_nll(hidden.data(), size, targets, head, results);
  Finding found;
  for (index_t r = 0; r < rows; ++r) {
    std::vector<double> score;
    for (index_t n = 0; n < vocab; ++n) {
      score.push_back(exact_product(hidden.data() + r * size, head, n).value);
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

/// Best of several runs within a tenth of a second, in GFLOP/s.
double gflops(double flops, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  double best = 0, total = 0;
  while (total < 0.1) {
    const auto start = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    total += seconds;
    best = std::max(best, flops / seconds / 1e9);
  }
  return best;
}

template <class T>
double gemm_speed(const KernelTable<T>& kernels) {
  constexpr index_t rows = 96, depth = 256, outputs = 512;
  const Buffer<T> a = random_buffer<T>(rows * depth, 14);
  const PackedMatrix<T> w = random_matrix<T>(outputs, depth, 15);
  Buffer<float> c(rows * outputs);
  return gflops(2.0 * rows * depth * outputs,
                [&] { kernels.multiply(a.data(), depth, rows, w, c.data(), outputs); });
}

template <class T>
double attention_speed(const KernelTable<T>& kernels) {
  AttentionInput<T> in(768, 1, 1, 64);
  const double n = static_cast<double>(in.tokens);
  return gflops(4 * 64 * n * (n + 1) / 2, [&] { in.attend(kernels.attend); });
}

template <class T>
struct Check {
  const char* name;
  Finding (*run)(const KernelTable<T>&);
};
template <class T>
constexpr Check<T> checks[] = {{"matrix product", check_gemm<T>}, {"norm", check_rows<T>},
                               {"swiglu", check_swiglu<T>},       {"rotation", check_rotation<T>},
                               {"attention", check_attention<T>}, {"head, loss", check_head<T>}};

constexpr double angle_limit = 3.1e-8;

/// What all checks found, as it is printed.
struct Report {
  std::vector<std::vector<std::string>> table = {
      {"check", "dtype", "isa", "error / allowed", "bits", "result"}};
  std::vector<std::string> failures = {};
};

/// The first set whose kernels of T add up like those of `isa`; for matrix tiles what computes
/// their sums without them.
template <class T>
KernelTable<T> reference_of(const IsaTables& isa) {
  const std::string_view numerics = isa.kernels<T>().numerics;
  if constexpr (std::is_same_v<T, bf16>) {
    if (numerics == matrix_tile_numerics_id) {
      return make_kernel_table<simd::emulated_amx, bf16>();
    }
  }
  for (const IsaTables& other : available_kernels()) {
    if (other.kernels<T>().numerics == numerics) return other.kernels<T>();
  }
  return isa.kernels<T>();
}

/// Runs the checks of kernels for T on every instruction set.
template <class T>
void check_kernels(const std::string& dtype, Report& report) {
  for (const Check<T>& check : checks<T>) {
    for (const IsaTables& isa : available_kernels()) {
      const Finding found = check.run(isa.kernels<T>());
      const bool same = found.bits.digest() == check.run(reference_of<T>(isa)).bits.digest();
      const bool accurate = found.error <= 1;  // false for NaN
      if (!same || !accurate) {
        report.failures.push_back(fmt::format("{} {} {}", check.name, dtype, isa.isa()));
      }
      report.table.push_back({check.name, dtype, isa.isa(), fmt::format("{:.3f}", found.error),
                              same ? "same" : "differ", same && accurate ? "ok" : "FAILED"});
    }
  }
}

}  // namespace

int run_selftest(Arguments arguments) {
  std::string format = "table";
  Options options("selftest",
                  "Compares every kernel with double arithmetic, and the instruction sets with one "
                  "another bit by bit; measures one thread's speed roughly.",
                  "  ropewalk selftest\n  ropewalk selftest --format jsonl\n");
  options.choice("--format", {"table", "jsonl"}, format, "Form of the output");
  if (!options.parse(arguments)) return 0;

  const std::vector<IsaTables>& isas = available_kernels();
  Report report;
  check_kernels<float>("f32", report);
  check_kernels<bf16>("bf16", report);
  std::vector<std::string>& failures = report.failures;
  const double angles = angle_error();
  if (!(angles <= angle_limit)) failures.push_back("angles");
  report.table.push_back({"angles to 2^24", "f32", "any",
                          fmt::format("{:.3f}", angles / angle_limit), "-",
                          angles <= angle_limit ? "ok" : "FAILED"});
  Row row = {{"isa", std::string(isas.front().isa())},
             {"angle_error", angles},
             {"failed", static_cast<std::int64_t>(failures.size())}};
  std::string speeds;
  for (const IsaTables& isa : isas) {
    const double gemm = gemm_speed(isa.f32), attention = attention_speed(isa.f32);
    const double gemm_b16 = gemm_speed(isa.b16), attention_b16 = attention_speed(isa.b16);
    speeds += fmt::format(
        "{}: gemm {:.1f} GFLOP/s, attention {:.1f} GFLOP/s; bf16: {:.1f} and {:.1f} (one thread)\n",
        isa.isa(), gemm, attention, gemm_b16, attention_b16);
    const std::string name = isa.isa();
    row.emplace_back("gemm_gflops_" + name, gemm);
    row.emplace_back("attention_gflops_" + name, attention);
    row.emplace_back("gemm_bf16_gflops_" + name, gemm_b16);
    row.emplace_back("attention_bf16_gflops_" + name, attention_b16);
  }
  if (format == "jsonl") {
    print(to_json(row) + "\n");
  } else {
    print(fmt::format("isa chosen: {}\n", isas.front().isa()) + aligned_table(report.table) +
          speeds);
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
