// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk bench`: speed and memory of scoring one window with random weights, beside the limit
/// of this machine measured in the same run.

#include <algorithm>
#include <cmath>
#include <thread>

#include <fmt/format.h>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/number_text.hpp"
#include "ropewalk/core/text_match.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/model/cost.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/frequency_plan.hpp"
#include "ropewalk/rope/position_map.hpp"

#include "args.hpp"
#include "commands.hpp"
#include "kernels.hpp"
#include "machine.hpp"
#include "measure/machine_limits.hpp"
#include "measure/random_data.hpp"
#include "output.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

constexpr const char* examples =
    "  ropewalk bench --shape micro --length 2048\n"
    "  ropewalk bench --shape C=256,L=6,F=688,V=4096,H=4,K=4,D=64 --length 2048 --format jsonl\n"
    "  ropewalk bench --shape small --length 8K --threads 1 --repetitions 9\n";

struct Preset {
  std::string_view name;
  std::string_view shape;
};

/// The shapes that are compared with other programs.
constexpr Preset presets[] = {
    {"nano", "C=128,L=4,F=344,V=256,H=4,K=4,D=32"},
    {"micro", "C=256,L=6,F=688,V=4096,H=4,K=4,D=64"},
    {"small", "C=512,L=8,F=1376,V=8192,H=8,K=8,D=64"},
    {"index", "C=2048,L=4,F=5888,V=65029,H=16,K=16,D=128"},
};

struct Dimension {
  std::string_view key;
  std::string_view name;  ///< the same in LlamaConfig's errors
  index_t LlamaConfig::*field;
};
constexpr Dimension dimensions[] = {
    {"C", "hidden_size", &LlamaConfig::hidden_size},
    {"L", "num_hidden_layers", &LlamaConfig::num_hidden_layers},
    {"F", "intermediate_size", &LlamaConfig::intermediate_size},
    {"V", "vocab_size", &LlamaConfig::vocab_size},
    {"H", "num_attention_heads", &LlamaConfig::num_attention_heads},
    {"K", "num_key_value_heads", &LlamaConfig::num_key_value_heads},
    {"D", "head_dim", &LlamaConfig::head_dim},
};

std::string shape_text(const LlamaConfig& config) {
  std::string text;
  for (const Dimension& d : dimensions) {
    text += fmt::format("{}{}={}", text.empty() ? "" : ",", d.key, config.*d.field);
  }
  return text;
}

[[noreturn]] void refuse_shape(std::string found, std::string expected, std::string fix = {}) {
  fail_usage("--shape", std::move(found), std::move(expected), std::move(fix));
}

/// A preset's name, or all seven dimensions. \throws Error(usage) naming the one that is wrong.
LlamaConfig parse_shape(std::string_view text) {
  constexpr const char* form = "C=256,L=6,F=688,V=4096,H=4,K=4,D=64, or ";
  std::vector<std::string_view> names;
  for (const Preset& p : presets) names.push_back(p.name);
  if (text.find('=') == std::string_view::npos) {
    const auto preset = std::find(names.begin(), names.end(), text);
    if (preset == names.end()) {
      const std::string near = nearest(text, names);
      refuse_shape(text.empty() ? "nothing" : escaped(text),
                   form + fmt::format("{}", fmt::join(names, ", ")),
                   near.empty() ? "" : "Did you mean " + near + "?");
    }
    text = presets[preset - names.begin()].shape;
  }
  LlamaConfig config;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(item.size() + 1, text.size()));
    const std::string_view key = item.substr(0, item.find('='));
    const auto found = std::find_if(std::begin(dimensions), std::end(dimensions),
                                    [&](const Dimension& d) { return d.key == key; });
    if (found == std::end(dimensions) || key.size() == item.size()) {
      refuse_shape(escaped(item), "key=value with a key of C, L, F, V, H, K, D");
    }
    index_t& value = config.*found->field;
    if (value != 0) refuse_shape(fmt::format("{} twice", key), "each key once");
    const auto number = parse_size(item.substr(key.size() + 1));
    if (!number || *number < 1) refuse_shape(escaped(item), "a whole number of at least 1");
    value = *number;
  }
  for (const Dimension& d : dimensions) {
    if (config.*d.field == 0) refuse_shape(fmt::format("no {}", d.key), "all of C,L,F,V,H,K,D");
  }
  config.max_position_embeddings = 1;
  try {
    config.check();
  } catch (const Error& error) {
    const ErrorInfo& info = error.info();
    std::string key = info.field;
    for (const Dimension& d : dimensions) {
      if (d.name == info.field) key = d.key;
    }
    refuse_shape(key + "=" + info.found, key + ": " + info.expected);
  }
  return config;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// All that one window needs, and how long it took.
template <class T>
class Window {
 public:
  Window(const LlamaConfig& config, index_t length, std::uint64_t seed, const Executor& executor)
      : model_(make_llama(config, measure::random_weights<T>(config, seed, executor))),
        tokens_(measure::random_ids(length, config.vocab_size, seed)),
        targets_(tokens_.begin() + 1, tokens_.end()),
        results_(tokens_.size()) {
    targets_.push_back(tokens_.front());
  }
  /// Seconds of one scoring pass, plans included. \throws Error(numeric)
  double run(const KernelTable<T>& kernels, const Executor& executor) {
    const double start = measure::seconds_now(measure::TimeBase::wall);
    const auto n = static_cast<index_t>(tokens_.size());
    const FrequencyPlan plan =
        make_frequency_plan(AdjustedBase{}, {.rotary_dim = model_.config.head_dim});
    const BlockPlan blocks = make_block_plan(Causal{}, n);
    const std::vector<std::int64_t> positions = batch_positions(Identity{}, n);
    const RotaryRows rows = make_rotary_rows(plan, positions);
    const RotationPair rotation{&rows, &rows};
    const LayerPlan layer{.branches = {&rotation, 1}, .blocks = &blocks};
    forward(model_, std::span(&layer, 1),
            {.tokens = tokens_, .targets = targets_, .positions = positions}, nullptr, kernels,
            executor, workspace_, results_);
    const double seconds = measure::seconds_now(measure::TimeBase::wall) - start;
    for (const HeadResult& r : results_) {
      if (std::isfinite(r.nll)) continue;
      fail({.kind = ErrorClass::numeric,
            .field = "nll",
            .found = "a loss that is not finite",
            .expected = "finite losses of random weights",
            .fix = "Run ropewalk selftest"});
    }
    return seconds;
  }

 private:
  Llama<T> model_;
  std::vector<TokenId> tokens_, targets_;
  std::vector<HeadResult> results_;
  Workspace workspace_;
};

/// What a model and one pass take. \throws Error(resource) when this machine has less
template <class T>
std::int64_t added_bytes(const LlamaConfig& config, index_t tokens, index_t workers) {
  std::int64_t bytes = 0;
  try {
    bytes = forward_memory<T>(config, tokens, workers, false).total();
  } catch (const Error&) {
    refuse_shape(shape_text(config), "a model of less than 2^63 bytes");
  }
  const MemoryRoom room = memory_room();
  if (bytes > room.bytes) {
    fail({.kind = ErrorClass::resource,
          .field = "memory",
          .found = "a need of " + bytes_text(static_cast<double>(bytes)),
          .expected =
              "at most " + bytes_text(static_cast<double>(room.bytes)) + " (" + room.limit + ")",
          .fix = "Give a smaller --shape or --length"});
  }
  return bytes;
}

/// What was measured.
struct Samples {
  std::vector<double> seconds = {};  ///< of each pass
  std::vector<double> limits = {};   ///< GFLOP/s, the mean of the probes before and after each pass
  std::int64_t predicted_bytes = 0;
};

/// Times `repetitions` passes after one that warms up, with probes of the multiply-adds that
/// products of T are made of, on the threads that the passes use.
template <class T>
Samples measure_passes(const LlamaConfig& config, index_t tokens, std::uint64_t seed,
                       const IsaTables& isa, const Executor& executor, std::int64_t repetitions) {
  const KernelTable<T>& kernels = isa.kernels<T>();
  Samples out;
  const auto probe = [&] {
    return measure::fma_gflops(isa.limit<T>(), executor, measure::TimeBase::wall);
  };
  const std::int64_t added = added_bytes<T>(config, tokens, executor.workers());
  out.predicted_bytes = checked_add(process_memory().resident, added, "predicted_bytes");
  Window<T> window(config, tokens, seed, executor);
  window.run(kernels, executor);
  for (double before = probe(); std::ssize(out.seconds) < repetitions;) {
    check_stop();
    out.seconds.push_back(window.run(kernels, executor));
    const double after = probe();
    out.limits.push_back((before + after) / 2);
    before = after;
  }
  return out;
}

}  // namespace

int run_bench(Arguments arguments) {
  std::string shape, dtype = "f32", isa = "auto", format = "table";
  std::optional<std::int64_t> length, threads, repetitions;
  std::uint64_t seed = 0;
  bool quiet = false;
  Options options("bench",
                  "Scores one window with random weights, several times: tokens per second and "
                  "GFLOP/s (medians) beside the multiply-add limit of the same threads in the same "
                  "run, and peak memory beside its prediction.",
                  examples);
  options.text("--shape", "SHAPE", shape,
               "nano, micro, small, index, or C=channels,L=layers,F=feed-forward,V=vocabulary,"
               "H=heads,K=key/value heads,D=head_dim");
  options.size("--length", 1, length, "Tokens of the window [2048]");
  options.size("--repetitions", 1, repetitions, "Timed passes after one that warms up [5]");
  options.size("--threads", 1, threads, "Threads [all]");
  options.choice("--dtype", {"f32", "bf16"}, dtype, "Arithmetic of the model");
  options.choice("--isa", isa_choices(), isa, "Instruction set");
  options.natural("--seed", seed, "Seed of weights and tokens [0]");
  options.choice("--format", {"table", "csv", "jsonl"}, format, "Form of the output");
  options.flag("--quiet", quiet, "No remarks on stderr");
  if (!options.parse(arguments)) return 0;
  if (shape.empty()) fail_usage("--shape", "nothing", "a shape, such as micro");
  const LlamaConfig config = parse_shape(shape);
  constexpr std::int64_t most_tokens = std::int64_t{1} << 24;
  if (length && *length > most_tokens) {
    fail_usage("--length", std::to_string(*length), "at most 16M");
  }
  if (repetitions && *repetitions > 1000) {
    fail_usage("--repetitions", std::to_string(*repetitions), "at most 1000");
  }
  if (threads && *threads > 4096) fail_usage("--threads", std::to_string(*threads), "1 to 4096");
  const IsaTables& kernels = choose_kernels(isa);
  const index_t tokens = length.value_or(2048);
  const auto workers = static_cast<index_t>(
      threads.value_or(std::max(1, static_cast<int>(std::thread::hardware_concurrency()))));

  install_stop_signals();
  ThreadPool pool(workers);
  const Executor executor = pool.executor();
  const Samples samples = with_dtype(dtype, [&]<class T>(T) {
    return measure_passes<T>(config, tokens, seed, kernels, executor, repetitions.value_or(5));
  });

  const std::vector<double>& seconds = samples.seconds;
  const double n = static_cast<double>(tokens);
  const double flops = forward_flops(config, tokens), time = median(seconds);
  const auto [fastest, slowest] = std::minmax_element(seconds.begin(), seconds.end());
  const double gflops = flops / time * 1e-9;
  std::vector<double> shares;  // each beside the limit of its time
  for (std::size_t r = 0; r < seconds.size(); ++r) {
    shares.push_back(flops / seconds[r] * 1e-9 / samples.limits[r]);
  }
  const double share = median(shares);
  const std::int64_t peak = process_memory().peak_resident;
  const Row row = {{"shape", shape_text(config)},
                   {"length", std::int64_t{tokens}},
                   {"dtype", dtype},
                   {"isa", std::string(kernels.isa())},
                   {"threads", std::int64_t{workers}},
                   {"repetitions", static_cast<std::int64_t>(seconds.size())},
                   {"tok_s", n / time},
                   {"tok_s_min", n / *slowest},
                   {"tok_s_max", n / *fastest},
                   {"gflops", gflops},
                   {"limit_gflops", gflops / share},
                   {"share_of_limit", share},
                   {"flops", flops},
                   {"peak_rss_bytes", peak != 0 ? Value(peak) : Value()},
                   {"predicted_bytes", samples.predicted_bytes}};
  switch (parse_format(format)) {
    case Format::jsonl:
      print(to_json(row) + "\n");
      break;
    case Format::csv:
      print(csv_header(row) + csv_line(row));
      break;
    case Format::table:
      for (const auto& [key, value] : row) {
        const auto* text = std::get_if<std::string>(&value);
        const auto* number = std::get_if<double>(&value);
        print(fmt::format("{:<16}  {}\n", key,
                          text != nullptr     ? *text
                          : number != nullptr ? fmt::format("{:.4g}", *number)
                                              : to_json(value)));
      }
      break;
  }
  flush_output();
  const bool tiles = kernels.b16.numerics != std::string_view(numerics_id);
  const char* probed = dtype == "f32" || kernels.fma_b16.spin == kernels.fma.spin
                           ? "float multiply-adds"
                       : tiles ? "products of bf16 matrix tiles"
                               : "bf16 dot products";
  remark(quiet, fmt::format("limit: probes of {} {} on {} thread{} before and after each pass",
                            kernels.isa(), probed, workers, workers == 1 ? "" : "s"));
  return 0;
}

}  // namespace cli
