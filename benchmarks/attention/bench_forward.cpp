// SPDX-License-Identifier: Apache-2.0
/// \file
/// Causal attention of one head a thread, panels and mask included, buffers kept, the masked
/// half not credited; documents packed in one window beside as many windows; and decoding, one
/// query row against a cache.

#include <cstring>

#include "ropewalk/attention/attention.hpp"

#include "harness.hpp"
#include "measure/attention_input.hpp"

namespace bench {
namespace {

/// Queries whose scores have about the size of a model's: deviation 1 in natural units.
double query_deviation(index_t head_dim) {
  return log2_e / std::sqrt(static_cast<double>(head_dim));
}

/// Of the largest |value|. float: what attend() promises. bf16: weights and the output are rounded
/// to 2^-8 of themselves each, and the sum divides the rounded weights.
template <class T>
inline constexpr double allowed_error = std::is_same_v<T, float> ? 2e-6 : 0x1p-7;

std::string name_of(const std::string& op, index_t d, index_t n) {
  return "attention/" + op + "/d" + std::to_string(d) + "/n" + std::to_string(n) + "/";
}

/// Query blocks times heads of a window, the most parts into which it is divided.
index_t parts_of(index_t n, index_t heads) {
  return std::min<index_t>((n + query_block - 1) / query_block * heads, 256);
}

double causal_flops(index_t n, index_t heads, index_t head_dim) {
  const double tokens = static_cast<double>(n);
  return static_cast<double>(heads * head_dim) * 2 * tokens * (tokens + 1);
}

/// attention() on plain tensors of floats.
struct PlainTensors {
  AttentionInput<float> in;
  std::vector<std::int32_t> documents;  ///< offsets; empty for one causal window
  Workspace workspace;

  PlainTensors(AttentionInput<float> input, std::vector<std::int32_t> offsets, index_t)
      : in(std::move(input)), documents(std::move(offsets)) {}
  /// Tokens [first, first + count).
  void run(index_t first, index_t count, const Executor& executor) {
    const index_t from = first * in.heads * in.head_dim;
    const std::array<index_t, 3> extents = {count, in.heads, in.head_dim};
    // The scale makes up for log2(e), which the queries carry already.
    const AttentionOptions options{
        .softmax_scale = 1 / log2_e, .executor = executor, .workspace = &workspace};
    const HeadsView<const float> q(in.queries.data() + from, extents);
    const HeadsView<const float> k(in.keys.data() + from, extents);
    const HeadsView<const float> v(in.values.data() + from, extents);
    const HeadsView<float> out(in.output.data() + from, extents);
    if (documents.empty()) {
      attention(q, k, v, Causal{}, out, {}, options);
    } else {
      attention(q, k, v, CausalDocuments{documents}, out, {}, options);
    }
  }
};

/// The same for bf16, as a model runs it: panels are rounded from floats, heads share nothing.
struct PackedPanels {
  AttentionInput<bf16> in;
  std::vector<std::int32_t> documents;
  Buffer<float> keys, values;  ///< as in `in`, widened
  Buffer<float> scratch;       ///< of each thread
  index_t threads;

  PackedPanels(AttentionInput<bf16> input, std::vector<std::int32_t> offsets, index_t thread_count)
      : in(std::move(input)),
        documents(std::move(offsets)),
        keys(in.keys.size()),
        values(in.values.size()),
        scratch(attention_scratch_size<bf16>(in.head_dim) * thread_count),
        threads(thread_count) {
    std::transform(in.keys.span().begin(), in.keys.span().end(), keys.data(),
                   [](bf16 x) { return to_float(x); });
    std::transform(in.values.span().begin(), in.values.span().end(), values.data(),
                   [](bf16 x) { return to_float(x); });
  }
  void run(index_t first, index_t count, const Executor& executor) {
    const BlockPlan plan = documents.empty() ? make_block_plan(Causal{}, count)
                                             : make_block_plan(CausalDocuments{documents}, count);
    const KeyValuePanels<bf16> panels{.keys = in.key_panels.data(),
                                      .values = in.value_panels.data(),
                                      .slots = plan.key_slots,
                                      .num_heads = in.key_heads,
                                      .head_dim = in.head_dim};
    const index_t row = in.key_heads * in.head_dim;
    const float* k = keys.data() + first * row;
    const float* v = values.data() + first * row;
    for_each_in_runs(executor, (count + key_panel - 1) / key_panel, [&](index_t tile, index_t) {
      const index_t begin = tile * key_panel, size = std::min(key_panel, count - begin);
      const std::span slots(plan.key_slot.data() + begin, static_cast<std::size_t>(size));
      for_each_slot_run(slots, [&](index_t t, index_t slot, index_t run_size) {
        for (index_t h = 0; h < in.key_heads; ++h) {
          const index_t at = (begin + t) * row + h * in.head_dim;
          store_keys<simd::native>(panels, h, slot, run_size, k + at, row);
          store_values<simd::native>(panels, h, slot, run_size, v + at, row);
        }
      });
    });
    const std::array<index_t, 3> extents = {count, in.heads, in.head_dim};
    const index_t from = first * in.heads * in.head_dim;
    const AttentionBranch<bf16> branch{{in.queries.data() + from, extents}, panels};
    const AttentionCall<bf16> call{.branches = {&branch, 1},
                                   .plan = &plan,
                                   .output = {in.output.data() + from, extents},
                                   .lse = {}};
    const AttentionTasks tasks(call, executor);
    const index_t scratch_size = scratch.size() / threads;
    for_each_dealt(executor, tasks.size(), [&](index_t i, index_t worker) {
      with_instructions<bf16>([&]<class Arch>() {
        attend<Arch>(call, tasks[i], scratch.data() + worker % threads * scratch_size);
      });
    });
  }
};

template <class T>
using Pass = std::conditional_t<std::is_same_v<T, float>, PlainTensors, PackedPanels>;

template <class T>
struct Forward {
  Pass<T> pass;
  Threads threads;

  Forward(index_t n, index_t d, index_t thread_count)
      : pass{AttentionInput<T>(n, thread_count, thread_count, d, 0, query_deviation(d)),
             {},
             thread_count},
        threads(thread_count) {}
  void run(const Executor& executor) { pass.run(0, pass.in.tokens, executor); }
  std::string fault() {
    run(threads.executor());
    double worst = 0;
    const index_t n = pass.in.tokens;
    for (const index_t t :
         {index_t{0}, index_t{1}, index_t{95}, index_t{96}, n / 3, n - 2, n - 1}) {
      worst = worse(worst, pass.in.error_of_row(t));
    }
    return fault_of(worst, allowed_error<T>);
  }
  Work work() const {
    return {.flops = causal_flops(pass.in.tokens, pass.in.heads, pass.in.head_dim),
            .executor = threads.executor(),
            .parts = parts_of(pass.in.tokens, pass.in.heads),
            .bf16s = std::is_same_v<T, bf16>};
  }
};

/// Documents of one length, in one window with a document mask or each in its own.
template <class T>
struct Documents {
  index_t length, count;
  bool together;
  Pass<T> pass;
  std::vector<std::int32_t> offsets;

  Documents(index_t n, index_t documents, index_t d, bool in_one_window)
      : length(n),
        count(documents),
        together(in_one_window),
        pass{AttentionInput<T>(n * documents, 1, 1, d, 0, query_deviation(d)), {}, 1} {
    for (index_t i = 0; i <= documents; ++i) offsets.push_back(static_cast<std::int32_t>(i * n));
  }
  void run(const Executor& executor) {
    if (together) {
      pass.documents = offsets;
      pass.run(0, length * count, executor);
    } else {
      pass.documents = {};
      for_each_in_runs(executor, count,
                       [&](index_t document, index_t) { pass.run(document * length, length, {}); });
    }
  }
  std::string fault() {
    together = !together;
    run({});
    const std::vector<T> otherwise(pass.in.output.span().begin(), pass.in.output.span().end());
    together = !together;
    run({});
    if (std::memcmp(otherwise.data(), pass.in.output.data(), sizeof(T) * otherwise.size()) != 0) {
      return "wrong result: documents packed and alone have different bits";
    }
    return fault_of(worse(pass.in.error_of_row(1), pass.in.error_of_row(length - 1)),
                    allowed_error<T>);
  }
  Work work() const {
    return {.flops = static_cast<double>(count) * causal_flops(length, 1, pass.in.head_dim),
            .parts = together ? parts_of(length * count, 1) : count,
            .bf16s = std::is_same_v<T, bf16>};
  }
};

/// One token of 8 heads with keys and values of their own, all cached.
template <class T>
struct Decode {
  AttentionInput<T> in;

  Decode(index_t n, index_t d) : in(1, 8, 8, d, n - 1, query_deviation(d)) {}
  void run() {
    with_instructions<T>([&]<class Arch>() { in.attend(&attend<Arch, T>); });
  }
  std::string fault() {
    run();
    return fault_of(in.error_of_row(0), allowed_error<T>);
  }
  Work work() const {
    const double bytes =
        sizeof(T) * static_cast<double>(in.key_panels.size() + in.value_panels.size());
    return {.bytes = bytes, .traffic = Traffic::read, .working_set = bytes};
  }
};

template <class T>
void add_dtype() {
  for (const index_t d : {64, 128}) {
    for (const index_t n : {512, 2048, 8192, 32768}) {
      for (const index_t threads : {1, 2}) {
        add(name_of("forward", d, n) + dtype_and_threads<T>(threads),
            [=] { return Forward<T>(n, d, threads); });
      }
    }
    for (const index_t n : {2048, 32768}) {
      add(name_of("decode", d, n) + dtype_and_threads<T>(), [=] { return Decode<T>(n, d); });
    }
    for (const bool together : {true, false}) {
      add(name_of(together ? "packed" : "windows", d, 32768) + "documents:32/" +
              dtype_and_threads<T>(),
          [=] { return Documents<T>(1024, 32, d, together); });
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
