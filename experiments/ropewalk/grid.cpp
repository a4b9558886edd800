// SPDX-License-Identifier: Apache-2.0
#include "grid.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ropewalk/io/npy.hpp"

#include "build_facts.hpp"
#include "progress.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

/// The first loss that is not finite, as (window, position); nothing when all are.
std::optional<std::pair<index_t, index_t>> first_nonfinite(const WindowLosses& losses,
                                                           index_t length) {
  for (index_t w = 0; w < losses.windows; ++w) {
    for (index_t t = 0; t < length; ++t) {
      if (!std::isfinite(losses.nll[static_cast<std::size_t>(w * losses.length + t)])) {
        return std::pair(w, t);
      }
    }
  }
  return std::nullopt;
}

CellRow make_cell(const Setting& setting, const FrequencyPlan& plan, const WindowLosses& losses,
                  index_t length, const ScoringData& data, const std::string& protocol,
                  const Row& origin) {
  const LossSummary s = summarize(losses, length);
  const auto nonfinite = first_nonfinite(losses, length);
  const std::int64_t text_bytes = data.text_bytes(length);
  const auto if_finite = [&](double value) { return nonfinite ? Value() : Value(value); };
  CellRow cell;
  cell.results = {
      {"rope", setting.canonical},
      {"rope_arg", setting.arg},
      {"length", std::int64_t{length}},
      {"windows", std::int64_t{s.windows}},
      {"tokens", s.tokens},
      {"nll", if_finite(s.nll)},
      {"ppl", if_finite(s.ppl)},
      {"top1", if_finite(s.top1)},
      {"se", s.windows > 1 ? if_finite(s.se) : Value()},
      {"bpb",
       text_bytes > 0 ? if_finite(s.nll_sum * log2_e / static_cast<double>(text_bytes)) : Value()},
      {"protocol", protocol},
      {"mode", setting.depends_on_length ? fmt::format("prefill({})", length) : "static"},
      {"rope_hash", hash_text(plan.rope_hash)},
      {"nll_sum", if_finite(s.nll_sum)},
      {"status", std::string(nonfinite ? "nonfinite" : "ok")}};
  cell.origin = origin;
  if (nonfinite) {
    cell.origin.emplace_back("nonfinite_window", std::int64_t{nonfinite->first});
    cell.origin.emplace_back("nonfinite_position", std::int64_t{nonfinite->second});
  }
  return cell;
}

/// One forward pass over all windows: the lengths that it is to give.
struct Pass {
  index_t length = 0;  ///< of the pass
  std::vector<index_t> wanted = {};
};

const CellRow* find_known(const KnownCells& known, const Setting& setting, index_t length) {
  const auto it = known.find({setting.arg, length});
  return it == known.end() ? nullptr : &it->second;
}

/// The passes that the unknown cells of a setting need; a file of losses needs the longest one.
std::vector<Pass> plan_passes(const Grid& grid, const Setting& setting, const KnownCells& known) {
  std::vector<Pass> passes;
  for (const LengthGroup& group : group_lengths(setting.policy, grid.lengths)) {
    Pass pass;
    for (const index_t length : group.lengths) {
      if (find_known(known, setting, length) == nullptr ||
          (!grid.nll_files.empty() && length == grid.longest())) {
        pass.wanted.push_back(length);
      }
    }
    if (pass.wanted.empty()) continue;
    pass.length = pass.wanted.back();
    passes.push_back(std::move(pass));
  }
  return passes;
}

std::string device_and_inode(const std::string& path) {
  struct stat s {};
  if (path.empty() || ::stat(path.c_str(), &s) != 0) return {};
  return fmt::format("{}:{}", s.st_dev, s.st_ino);
}

void check_nll_file(const std::string& path, const GridOptions& options) {
  std::vector<std::string> inputs = options.data.texts;
  inputs.insert(inputs.end(), {options.data.tokens, options.model.model, options.model.tokenizer});
  for (const std::string& input : inputs) {
    if (!input.empty() && device_and_inode(input) == device_and_inode(path) &&
        !device_and_inode(path).empty()) {
      fail_usage("--nll-out", path, "a file that is no input of the same command");
    }
  }
  const std::string folder = ropewalk::detail::directory_of(path);
  if (is_directory(path) || ::access(folder.c_str(), W_OK | X_OK) != 0) {
    fail_usage("--nll-out", path, "a file in an existing folder that may be written to");
  }
}

}  // namespace

index_t Grid::longest() const { return *std::max_element(lengths.begin(), lengths.end()); }

Row CellRow::whole() const {
  Row row = results;
  row.insert(row.end(), origin.begin(), origin.end());
  return row;
}

bool CellRow::finite() const { return value_of(results, "status") == Value(std::string("ok")); }

const Value& value_of(const Row& row, std::string_view key) {
  static const Value none;
  for (const auto& [name, value] : row) {
    if (name == key) return value;
  }
  return none;
}

double number_of(const Value& value) {
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  return std::numeric_limits<double>::quiet_NaN();
}

Row grid_configuration(const Grid& grid, const ModelOptions& options, const LoadedModel& model,
                       const ScoringData& data) {
  std::vector<std::string> ropes, args;
  for (const Setting& s : grid.settings) ropes.push_back(s.canonical), args.push_back(s.arg);
  return {{"schema", row_schema},
          {"numerics_id", std::string(numerics_id)},
          {"dtype", options.dtype},
          {"angles", options.angles},
          {"pair_layout", std::string(pair_layout_name(model.llama.config.pair_layout))},
          {"seed", options.seed},
          {"weights_hash", hash_text(model.weights_hash)},
          {"data_hash", hash_text(data.hash)},
          {"window_tokens", std::int64_t{data.window_tokens}},
          {"windows", std::int64_t{data.windows().count()}},
          {"text_bytes", data.text_bytes(grid.longest())},
          {"protocol", grid.protocol},
          {"rope", ropes},
          {"rope_arg", args},
          {"lengths", std::vector<std::int64_t>(grid.lengths.begin(), grid.lengths.end())}};
}

std::string configuration_hash(const Row& configuration) {
  return hash_text(Hasher().text(to_json(configuration)).digest());
}

Row row_origin(const ModelOptions& options, const LoadedModel& model, const ScoringData& data,
               const std::string& config_hash) {
  return {{"schema", row_schema},
          {"version", version_text()},
          {"git_revision", std::string(ropewalk_build::git_revision)},
          {"compiler", std::string(ropewalk_build::compiler)},
          {"isa", std::string(model.kernels.isa)},
          {"numerics_id", std::string(numerics_id)},
          {"dtype", options.dtype},
          {"angles", options.angles},
          {"pair_layout", std::string(pair_layout_name(model.llama.config.pair_layout))},
          {"seed", options.seed},
          {"model", model.path},
          {"weights_hash", hash_text(model.weights_hash)},
          {"data_hash", hash_text(data.hash)},
          {"window_tokens", std::int64_t{data.window_tokens}},
          {"config_hash", config_hash}};
}

void run_grid(const Grid& grid, LoadedModel& model, const ScoringData& data, const Row& origin,
              const KnownCells& known, bool quiet, const std::string& command,
              const std::function<void(std::size_t, const CellRow&, bool)>& finished) {
  std::vector<std::vector<Pass>> plan;
  std::int64_t tokens = 0;
  for (const Setting& setting : grid.settings) {
    plan.push_back(plan_passes(grid, setting, known));
    for (const Pass& pass : plan.back()) tokens += pass.length * data.windows().count();
  }
  Progress progress(quiet, command, static_cast<std::int64_t>(grid.cells()), tokens);
  Workspace workspace;
  const Runner<float> run{.model = &model.llama,
                          .kernels = &model.kernels,
                          .executor = model.threads.executor(),
                          .workspace = &workspace,
                          .precision = model.precision};
  for (std::size_t i = 0; i < grid.settings.size(); ++i) {
    const Setting& setting = grid.settings[i];
    std::map<index_t, CellRow> computed;
    for (const Pass& pass : plan[i]) {
      check_stop();
      const FrequencyPlan frequencies =
          plan_of(setting, {.rotary_dim = model.llama.config.head_dim, .seq_len = pass.length});
      const WindowLosses losses = score_windows(
          run, frequencies, data.windows(), {0, data.windows().count()}, pass.length, [&](index_t) {
            progress.add_tokens(pass.length);
            check_stop();
          });
      for (const index_t length : pass.wanted) {
        computed[length] =
            make_cell(setting, frequencies, losses, length, data, grid.protocol, origin);
      }
      if (!grid.nll_files.empty() && pass.length == grid.longest()) {
        write_npy(grid.nll_files[i], {losses.nll.data(), {losses.windows, losses.length}});
      }
    }
    progress.clear();
    for (const index_t length : grid.lengths) {
      const CellRow* before = find_known(known, setting, length);
      const auto now = computed.find(length);
      if (before != nullptr && now != computed.end() &&
          to_json(before->results) != to_json(now->second.results)) {
        fail({.kind = ErrorClass::state,
              .where = setting.arg + " at length " + std::to_string(length),
              .found = "nll " + to_json(value_of(now->second.results, "nll")) + " now, " +
                       to_json(value_of(before->results, "nll")) + " in the results folder",
              .expected = "the same bits: results do not depend on when they are computed",
              .fix = "Give another --out, and report this"});
      }
      finished(i, before != nullptr ? *before : now->second, before == nullptr);
    }
    progress.add_cells(static_cast<std::int64_t>(grid.lengths.size()));
  }
}

void add_grid_options(Options& options, GridOptions& out, const std::string& what_rope,
                      const std::string& what_nll) {
  add_data_options(options, out.data);
  options.texts("--rope", "SPEC", out.rope, what_rope);
  options.sizes("--lengths,--length", out.lengths, "Context lengths in tokens, such as 512,1K,2K");
  options.choice("--protocol", {prefix_protocol}, out.protocol,
                 "prefix: mean over windows x the first L positions of one causal pass");
  options.text("--nll-out", "FILE.npy", out.nll_out, what_nll);
  options.choice("--format", {"table", "csv", "jsonl"}, out.format, "Form of the rows on stdout");
  add_model_options(options, out.model);
}

void check_grid_options(const GridOptions& options) {
  if (options.lengths.empty()) {
    fail_usage("--lengths", "nothing", "context lengths such as 128,256,512");
  }
  if (options.data.texts.empty() == options.data.tokens.empty()) {
    fail_usage(
        "--text",
        options.data.tokens.empty() ? "neither --text nor --tokens" : "both --text and --tokens",
        "--text FILE... or --tokens FILE");
  }
}

Grid make_grid(const GridOptions& options, const LoadedModel& model) {
  Grid grid{.settings = parse_settings(options.rope, model), .protocol = options.protocol};
  for (const std::int64_t length : options.lengths) {
    grid.lengths.push_back(static_cast<index_t>(length));
  }
  if (options.nll_out.empty()) return grid;
  if (grid.settings.size() == 1) {
    grid.nll_files = {options.nll_out};
  } else {
    std::string stem = options.nll_out;
    if (stem.ends_with(".npy")) stem.resize(stem.size() - 4);
    for (std::size_t i = 0; i < grid.settings.size(); ++i) {
      grid.nll_files.push_back(fmt::format("{}-{}.npy", stem, i));
    }
  }
  for (const std::string& file : grid.nll_files) check_nll_file(file, options);
  return grid;
}

}  // namespace cli
