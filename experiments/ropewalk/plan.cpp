// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include <fmt/format.h>

#include "ropewalk/hub/hf_config.hpp"
#include "ropewalk/hub/llama2c_checkpoint.hpp"
#include "ropewalk/io/json.hpp"

#include "machine.hpp"
#include "progress.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

/// Share of the memory there is that a run may plan to take.
constexpr double usable = 0.9;

struct Term {
  const char* name;
  std::int64_t bytes;
};

std::vector<Term> terms_of(const RunMemory& m) {
  std::vector<Term> terms = {{"weights", m.pass.weights},
                             {"program and ids", m.loaded - m.pass.weights},
                             {"workspace", m.pass.workspace},
                             {"rotations", m.pass.rotary},
                             {"block plan", m.pass.block_plan},
                             {"results", m.pass.results},
                             {"losses", m.losses}};
  std::stable_sort(terms.begin(), terms.end(),
                   [](const Term& a, const Term& b) { return a.bytes > b.bytes; });
  return terms;
}

/// Tokens of the longest pass that is needed.
index_t longest_pass(const std::vector<SettingPasses>& settings) {
  index_t longest = 0;
  for (const SettingPasses& s : settings) {
    for (std::size_t g = 0; g < s.plans.size(); ++g) {
      for (std::size_t p = 0; p < s.plans[g].passes.size(); ++p) {
        if (s.needed[g][p]) longest = std::max(longest, s.plans[g].passes[p].num_tokens() - 1);
      }
    }
  }
  return longest;
}

/// What a pass of fewer tokens or threads would make of the peak.
std::int64_t scaled_peak(const RunMemory& m, const LlamaConfig& config, index_t length,
                         index_t tokens, index_t workers) {
  const ForwardMemory pass = forward_memory(config, tokens, workers, false);
  const double share = static_cast<double>(tokens) / static_cast<double>(length);
  return m.loaded + (pass.total() - pass.weights) +
         static_cast<std::int64_t>(share * static_cast<double>(m.losses));
}

std::string fitting_setting(const RunMemory& m, LoadedModel& model, index_t length, double limit) {
  const LlamaConfig& config = model.llama.config;
  const index_t workers = model.threads.executor().workers();
  const auto fits = [&](index_t tokens, index_t threads) {
    return static_cast<double>(scaled_peak(m, config, length, tokens, threads)) <= limit;
  };
  if (workers > 1 && fits(length, 1)) return "Give --threads 1";
  if (!fits(1, workers)) return "Take a machine with more memory, or a smaller model";
  index_t low = 1, high = length;  // low fits, high does not
  while (high - low > 1) {
    const index_t middle = low + (high - low) / 2;
    (fits(middle, workers) ? low : high) = middle;
  }
  return fmt::format("Give lengths of at most {} ({})", low,
                     bytes_text(static_cast<double>(scaled_peak(m, config, length, low, workers))));
}

[[noreturn]] void refuse(std::int64_t bytes, const std::string& terms, double limit,
                         const std::string& limit_name, std::string fix) {
  fail({.kind = ErrorClass::resource,
        .field = "memory",
        .found = fmt::format("a predicted peak of {} ({})", bytes_text(static_cast<double>(bytes)),
                             terms),
        .expected =
            fmt::format("at most {}, {} of what {} leaves", bytes_text(limit), usable, limit_name),
        .fix = std::move(fix)});
}

/// The shape of a model without its weights, and the size of the files that hold them.
struct ModelHeader {
  LlamaConfig config = {};
  double file_bytes = 0;
};

std::optional<ModelHeader> read_header(const std::string& path) {
  ModelHeader header;
  try {
    if (is_directory(path)) {
      const JsonDocument document = read_json(FileSource(path + "/config.json"));
      header.config = parse_hf_config(document.view()).config;
      std::error_code ignored;
      for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
        if (entry.path().extension() != ".safetensors") continue;
        header.file_bytes += static_cast<double>(entry.file_size(ignored));
      }
      return header;
    }
    const FileSource source(path);
    if (file_kind(source) != FileKind::unknown) return std::nullopt;
    header.config = llama2c_config(read_llama2c_layout(source).header);
    header.file_bytes = static_cast<double>(source.size());
    return header;
  } catch (const Error&) {
    return std::nullopt;  // loading will say what is wrong
  }
}

}  // namespace

RunMemory run_memory(const Evaluation& evaluation, const std::vector<SettingPasses>& settings,
                     LoadedModel& model) {
  const ProcessMemory now = process_memory();
  RunMemory m{
      .loaded = now.resident,
      .pass = forward_memory(model.llama.config, std::max<index_t>(1, longest_pass(settings)),
                             model.threads.executor().workers(), false),
      .before = now.peak_resident};
  // A loss takes 8 bytes and its hit one; those of the first setting are kept beside the current.
  constexpr std::int64_t loss = 9;
  const std::int64_t copies = settings.size() > 1 ? 2 : 1;
  std::int64_t stored = 0, summary = 0;
  for (const SettingPasses& s : settings) {
    std::int64_t scored = 0;
    for (const PassPlan& plan : s.plans) {
      for (const Pass& pass : plan.passes) scored += pass.num_tokens() - pass.first_scored;
    }
    stored = std::max(stored, scored * loss);
  }
  for (const RequestGroup& group : evaluation.groups) {
    for (const WindowPlan& plan : group.plans) {
      std::int64_t scored = 0;
      for (const ScoredWindow& w : plan.windows) scored += w.num_scored();
      // Resampling tokens: an item of 16 bytes, and sums around the ring twice.
      constexpr std::int64_t resampling = 3 * 16;
      summary = std::max(summary, scored * (copies * loss + resampling));
    }
  }
  m.losses = copies * stored + summary;
  return m;
}

std::string largest_terms(const RunMemory& memory, std::size_t count) {
  std::string out;
  const std::vector<Term> terms = terms_of(memory);
  for (std::size_t i = 0; i < std::min(count, terms.size()); ++i) {
    out += fmt::format("{}{} {}", i == 0 ? "" : ", ", terms[i].name,
                       bytes_text(static_cast<double>(terms[i].bytes)));
  }
  return out;
}

void check_run_memory(const RunMemory& memory, const std::vector<SettingPasses>& settings,
                      LoadedModel& model) {
  const MemoryRoom room = memory_room();
  const double limit = usable * static_cast<double>(memory.loaded + room.bytes);
  if (static_cast<double>(memory.peak()) <= limit) return;
  refuse(memory.peak(), largest_terms(memory, 3), limit, room.limit,
         fitting_setting(memory, model, std::max<index_t>(1, longest_pass(settings)), limit));
}

void check_weights_memory(const std::string& model_path) {
  const std::optional<ModelHeader> header = read_header(model_path);
  if (!header) return;
  std::int64_t bytes = 0;
  try {
    header->config.check();
    bytes = forward_memory(header->config, 1, 1, false).weights;
  } catch (const Error&) {
    return;
  }
  // Files of half-precision weights take half of what they become; far smaller files do not hold
  // what the header says, and loading will say so.
  if (4 * header->file_bytes < static_cast<double>(bytes)) return;
  const MemoryRoom room = memory_room();
  const double limit = usable * static_cast<double>(process_memory().resident + room.bytes);
  if (static_cast<double>(bytes) <= limit) return;
  refuse(bytes, "weights " + bytes_text(static_cast<double>(bytes)), limit, room.limit,
         "Take a machine with more memory, or a smaller model");
}

Speed measure_speed(const Grid& grid, const Evaluation& evaluation, LoadedModel& model) {
  using Clock = std::chrono::steady_clock;
  constexpr double budget = 1.5;  // seconds
  const std::span<const TokenId> ids = evaluation.groups.front().text.ids;
  index_t available = 0;
  for (const Request& r : evaluation.requests) available = std::max(available, r.length);
  available = std::min(available, static_cast<index_t>(ids.size()) - 1);
  StoppableExecutor executor(model.threads.executor());
  Workspace workspace;
  const Runner<float> runner{.model = &model.llama,
                             .kernels = &model.kernels,
                             .executor = executor.executor(),
                             .workspace = &workspace,
                             .precision = model.precision};
  RunnerScorer<float, AnyFrequency> score(runner, grid.settings.front().policy);
  const auto start = Clock::now();
  const auto elapsed = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  const auto time_of = [&](index_t length) {
    std::vector<HeadResult> results(static_cast<std::size_t>(length));
    const auto begin = Clock::now();
    score(length, ids.first(results.size()), ids.subspan(1, results.size()), results);
    return elapsed(begin);
  };
  // Short passes are repeated: the first one also takes the memory.
  Speed speed{.short_length = std::min<index_t>(available, 192)};
  time_of(speed.short_length);
  double best = time_of(speed.short_length);
  for (int i = 0; i < 8 && elapsed(start) < 0.2; ++i) {
    best = std::min(best, time_of(speed.short_length));
  }
  const LlamaConfig& config = model.llama.config;
  const ForwardFlops of_short = forward_flops_by_part(config, speed.short_length);
  speed.product_flops = speed.attention_flops = of_short.total() / best;
  speed.long_length = speed.short_length;
  // Double the length while the next pass, which costs up to four times the last, fits the budget.
  double last = best;
  while (2 * speed.long_length <= available && elapsed(start) + 5 * last < budget) {
    speed.long_length *= 2;
    time_of(speed.long_length);
    last = time_of(speed.long_length);
  }
  if (speed.long_length == speed.short_length) {
    speed.measured_seconds = elapsed(start);
    return speed;
  }
  // What products leave of the longest pass is attention's, where that is enough to be measured.
  const ForwardFlops of_long = forward_flops_by_part(config, speed.long_length);
  const double rest = last - (of_long.products + of_long.head) / speed.product_flops;
  if (rest > 0.1 * last && of_long.attention > 0.1 * of_long.total()) {
    speed.attention_flops = of_long.attention / rest;
  } else {
    speed.product_flops = speed.attention_flops = of_long.total() / last;
  }
  speed.measured_seconds = elapsed(start);
  return speed;
}

std::vector<CellCost> cell_costs(const Grid& grid, const Evaluation& evaluation,
                                 const std::vector<SettingPasses>& settings,
                                 const KnownCells& known, const RunMemory& memory,
                                 LoadedModel& model, const Speed& speed) {
  const LlamaConfig& config = model.llama.config;
  std::vector<CellCost> costs;
  for (std::size_t i = 0; i < grid.settings.size(); ++i) {
    const std::size_t first = costs.size();
    for (const Request& r : evaluation.requests) {
      const CellKey key{grid.settings[i].arg, r.protocol, r.length};
      costs.push_back(
          {.key = key, .rope = grid.settings[i].canonical, .done = known.contains(key)});
    }
    for (std::size_t g = 0; g < evaluation.groups.size(); ++g) {
      const PassPlan& plan = settings[i].plans[g];
      constexpr std::size_t none = static_cast<std::size_t>(-1);
      std::vector<std::size_t> owner(plan.passes.size(), none);
      for (std::size_t r = 0; r < evaluation.requests.size(); ++r) {
        const Request& request = evaluation.requests[r];
        if (request.group != g) continue;
        const WindowPlan& windows = evaluation.plan(request);
        const std::vector<index_t>& used = plan.pass_of[static_cast<std::size_t>(request.index)];
        RunMemory own = memory;
        for (std::size_t w = 0; w < used.size(); ++w) {
          const auto p = static_cast<std::size_t>(used[w]);
          if (owner[p] == none || (windows.windows[w].end == plan.passes[p].end &&
                                   evaluation.requests[owner[p]].length < request.length)) {
            owner[p] = r;
          }
          costs[first + r].peak_bytes =
              std::max(costs[first + r].peak_bytes, std::int64_t{plan.passes[p].num_tokens() - 1});
        }
        own.pass = forward_memory(config, std::max<index_t>(1, costs[first + r].peak_bytes),
                                  model.threads.executor().workers(), false);
        costs[first + r].peak_bytes = own.peak();
      }
      for (std::size_t p = 0; p < plan.passes.size(); ++p) {
        if (!settings[i].needed[g][p] || owner[p] == none) continue;
        const index_t tokens = plan.passes[p].num_tokens() - 1;
        const ForwardFlops flops = forward_flops_by_part(config, tokens);
        CellCost& cost = costs[first + owner[p]];
        ++cost.passes;
        cost.tokens += tokens;
        cost.flops += flops.total();
        cost.seconds += speed.seconds_of(flops);
      }
    }
  }
  return costs;
}

void print_plan(const Grid& grid, const Evaluation& evaluation, LoadedModel& model,
                const KnownCells& known, Format format, bool quiet) {
  const std::vector<SettingPasses> settings = plan_settings(grid, evaluation, known);
  const RunMemory memory = run_memory(evaluation, settings, model);
  const Speed speed = measure_speed(grid, evaluation, model);
  std::vector<CellCost> costs = cell_costs(grid, evaluation, settings, known, memory, model, speed);
  CellCost total{.key = {.rope_arg = "total"}, .done = true, .peak_bytes = memory.peak()};
  for (const CellCost& c : costs) {
    total.done = total.done && c.done;
    total.passes += c.passes;
    total.tokens += c.tokens;
    total.flops += c.flops;
    total.seconds += c.seconds;
  }
  costs.push_back(total);
  std::vector<std::vector<std::string>> table = {
      {"rope", "protocol", "length", "passes", "tokens", "Gflop", "peak memory", "time", ""}};
  bool header = false;
  for (const CellCost& c : costs) {
    const bool is_total = &c == &costs.back();
    const Row row = {{"rope", is_total ? Value() : Value(c.rope)},
                     {"rope_arg", c.key.rope_arg},
                     {"protocol", is_total ? Value() : Value(c.key.protocol)},
                     {"length", is_total ? Value() : Value(c.key.length)},
                     {"state", std::string(c.done ? "done" : "to do")},
                     {"passes", c.passes},
                     {"tokens", c.tokens},
                     {"flops", c.flops},
                     {"peak_bytes", c.peak_bytes},
                     {"seconds", c.seconds}};
    if (format == Format::jsonl) print(to_json(row) + "\n");
    if (format == Format::csv) print((header ? "" : csv_header(row)) + csv_line(row));
    header = true;
    table.push_back({c.key.rope_arg, c.key.protocol, is_total ? "" : std::to_string(c.key.length),
                     std::to_string(c.passes), std::to_string(c.tokens),
                     fmt::format("{:.4g}", c.flops * 1e-9),
                     bytes_text(static_cast<double>(c.peak_bytes)), duration_text(c.seconds),
                     c.done && !is_total ? "done" : ""});
  }
  if (format == Format::table) print(aligned_table(table));
  flush_output();
  remark(quiet,
         fmt::format("time from passes of {} and {} tokens that took {:.2f} s: {:.4g} Gflop/s "
                     "of products, {:.4g} of attention; passes shared by several lengths are "
                     "booked on the longest",
                     speed.short_length, speed.long_length, speed.measured_seconds,
                     speed.product_flops * 1e-9, speed.attention_flops * 1e-9));
  remark(quiet, "memory: " + largest_terms(memory, 7));
  check_run_memory(memory, settings, model);
  remark(quiet, "dry run: nothing was written; the same command without --dry-run starts it");
}

}  // namespace cli
