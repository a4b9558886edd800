// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "ropewalk/eval/score_passes.hpp"

#include "grid_run.hpp"
#include "machine.hpp"
#include "progress.hpp"

namespace cli {

Speed measure_speed(const Grid& grid, const Evaluation& evaluation, const RunPlan& plan,
                    LoadedModel& model) {
  using Clock = std::chrono::steady_clock;
  constexpr double budget = 1.5;  // seconds
  const std::span<const TokenId> ids = evaluation.groups.front().text.ids;
  index_t available = 0;
  for (const Request& r : evaluation.requests) available = std::max(available, r.length);
  available = std::min(available, static_cast<index_t>(ids.size()) - 1);
  index_t largest = 0;  // tokens of a batch
  std::size_t first = 0;
  for (const std::size_t end : plan.batches.ends) {
    index_t tokens = 0;
    for (; first < end; ++first) {
      tokens += pass_of(plan.settings, plan.batches.passes[first]).num_fed();
    }
    largest = std::max(largest, tokens);
  }
  StoppableExecutor executor(model.threads.executor());
  Workspace workspace;
  const auto score = [&](PassBatch& batch) {
    model.visit([&]<class T>(const ModelAs<T>& m) {
      const Runner<T> runner{.model = &m.llama,
                             .kernels = &m.kernels,
                             .executor = executor.executor(),
                             .workspace = &workspace,
                             .precision = model.precision};
      RunnerScorer<T, AnyFrequency>(runner, grid.settings.front().policy)(batch);
    });
  };
  const auto start = Clock::now();
  const auto elapsed = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  PassBatch batch;
  const auto time_of = [&](index_t length, index_t windows) {
    batch.clear();
    for (index_t w = 0; w < windows; ++w) {
      batch.add({.seq_len = length, .begin = 0, .end = length + 1}, ids);
    }
    const auto begin = Clock::now();
    score(batch);
    return elapsed(begin);
  };
  // Short windows in batches of the size that the run has, if these are quick enough; repeated,
  // because the first pass of a size also takes the memory.
  Speed speed{.short_length = std::min<index_t>(available, 192)};
  const index_t most = std::max<index_t>(1, largest / speed.short_length);
  index_t windows = 1;
  double best = time_of(speed.short_length, windows);
  while (2 * windows <= most && elapsed(start) + 4 * best < 0.4) {
    windows *= 2;
    best = time_of(speed.short_length, windows);
  }
  for (int i = 0; i < 9 && (i == 0 || elapsed(start) < 0.4); ++i) {
    best = std::min(best, time_of(speed.short_length, windows));
  }
  best /= static_cast<double>(windows);
  const LlamaConfig& config = model.config();
  const ForwardFlops of_short = forward_flops_by_part(config, speed.short_length);
  speed.product_flops = speed.attention_flops = of_short.total() / best;
  speed.long_length = speed.short_length;
  // Double the length while the next pass, which costs up to four times the last, fits the budget.
  double last = std::max(best, time_of(speed.long_length, 1));
  while (2 * speed.long_length <= available && elapsed(start) + 5 * last < budget) {
    speed.long_length *= 2;
    time_of(speed.long_length, 1);
    last = time_of(speed.long_length, 1);
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

std::vector<CellCost> cell_costs(const Grid& grid, const Evaluation& evaluation, const RunPlan& run,
                                 const KnownCells& known, LoadedModel& model, const Speed& speed) {
  const LlamaConfig& config = model.config();
  const std::vector<SettingPasses>& settings = run.settings;
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
        GridBatches alone;
        std::vector<index_t> fed;
        for (std::size_t w = 0; w < used.size(); ++w) {
          const auto p = static_cast<std::size_t>(used[w]);
          if (owner[p] == none || (windows.windows[w].end == plan.passes[p].end &&
                                   evaluation.requests[owner[p]].length < request.length)) {
            owner[p] = r;
          }
          if (w > 0 && used[w] == used[w - 1]) continue;
          alone.passes.push_back({i, g, p});
          fed.push_back(plan.passes[p].num_fed());
        }
        alone.ends = cut_batches(fed, run.batch_tokens);
        RunMemory own = run.memory;
        own.pass = largest_batch(model, settings, alone);
        costs[first + r].peak_bytes = own.peak();
      }
      for (std::size_t p = 0; p < plan.passes.size(); ++p) {
        if (!settings[i].needed[g][p] || owner[p] == none) continue;
        const index_t tokens = plan.passes[p].num_fed();
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
  const RunPlan plan = plan_run(grid, evaluation, model, known);
  const RunMemory& memory = plan.memory;
  const Speed speed = measure_speed(grid, evaluation, plan, model);
  std::vector<CellCost> costs = cell_costs(grid, evaluation, plan, known, model, speed);
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
  check_run_memory(plan, model);
  remark(quiet, "dry run: nothing was written; the same command without --dry-run starts it");
}

}  // namespace cli
