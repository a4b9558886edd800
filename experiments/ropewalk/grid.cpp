// SPDX-License-Identifier: Apache-2.0
#include "grid.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ropewalk/core/text_match.hpp"
#include "ropewalk/eval/bootstrap.hpp"
#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/eval/summary.hpp"
#include "ropewalk/io/npy.hpp"
#include "ropewalk/model/cost.hpp"

#include "build_facts.hpp"
#include "pass_store.hpp"
#include "progress.hpp"
#include "results_folder.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

/// Protocols that take --stride.
constexpr std::string_view strided_protocols[] = {"press", "hf", "yarn", "longlora",
                                                  "llamacpp_stride"};

bool takes_stride(std::string_view protocol) {
  return std::find(std::begin(strided_protocols), std::end(strided_protocols), protocol) !=
         std::end(strided_protocols);
}

Value real(double value) { return std::isfinite(value) ? Value(value) : Value(); }

/// Standard error of nll, and how it was found: from the scatter of windows (or documents) where
/// these are independent, else by resampling blocks of neighbours.
std::pair<double, std::string> standard_error(const WindowPlan& plan, const ScoredLosses& losses,
                                              const ProtocolSummary& s) {
  const bool overlapping = ropewalk::overlapping_windows(plan.protocol) > 1;
  if (std::isfinite(s.se) && !overlapping) {
    const Aggregation a = plan.protocol.aggregation;
    const bool documents = a == Aggregation::document_mean || a == Aggregation::mean_ppl;
    return {s.se, documents ? "documents" : "windows"};
  }
  const ResampleUnit unit = overlapping ? ResampleUnit::automatic : ResampleUnit::token;
  if (s.nonfinite_window >= 0 || s.tokens < 8 || (overlapping && s.windows < 2)) return {s.se, ""};
  const BootstrapEstimate e = bootstrap_token_nll(plan, losses, unit);
  return {e.se, fmt::format("bootstrap({})", e.block_length)};
}

/// Losses that a cell is made from, and those of the first setting.
struct CellLosses {
  const ScoredLosses& own;
  const ScoredLosses* first = nullptr;  ///< null for the first setting itself
};

CellRow make_cell(const Setting& setting, const FrequencyPlan& frequencies, const Request& request,
                  const RequestGroup& group, const CellLosses& losses, const Row& origin) {
  const WindowPlan& plan = group.plans[static_cast<std::size_t>(request.index)];
  const ProtocolSummary s = summarize(plan, group.text, losses.own);
  const bool finite = s.nonfinite_window < 0;
  const auto [se, se_method] = standard_error(plan, losses.own, s);
  double delta = ProtocolSummary::unknown, delta_se = ProtocolSummary::unknown;
  if (losses.first != nullptr && finite) {
    if (s.tokens >= 8) {
      const BootstrapEstimate e = compare(plan, *losses.first, losses.own).difference;
      delta = e.mean, delta_se = e.se;
    }
  }
  const auto same_length = [&](const ScoredWindow& w) {
    return w.seq_len == plan.windows.front().seq_len;
  };
  const std::string mode = !setting.depends_on_length ? "static"
                           : std::all_of(plan.windows.begin(), plan.windows.end(), same_length)
                               ? fmt::format("prefill({})", plan.windows.front().seq_len)
                               : std::string("prefill");
  const auto if_finite = [&](double value) { return finite ? real(value) : Value(); };
  CellRow cell;
  cell.results = {{"rope", setting.canonical},
                  {"rope_arg", setting.arg},
                  {"length", std::int64_t{request.length}},
                  {"windows", std::int64_t{s.windows}},
                  {"tokens", s.tokens},
                  {"nll", if_finite(s.nll)},
                  {"ppl", if_finite(s.ppl)},
                  {"top1", if_finite(s.top1)},
                  {"se", if_finite(se)},
                  {"bpb", if_finite(s.bits_per_byte)},
                  {"protocol", request.protocol},
                  {"mode", mode},
                  {"rope_hash", hash_text(frequencies.rope_hash)},
                  {"nll_sum", if_finite(s.nll_sum)},
                  {"word_ppl", if_finite(s.word_ppl)},
                  {"last_quarter", if_finite(s.last_quarter_nll)},
                  {"delta_nll", if_finite(delta)},
                  {"delta_se", if_finite(delta_se)},
                  {"se_method", se_method.empty() ? Value() : Value(se_method)},
                  {"protocol_hash", hash_text(s.protocol_hash)},
                  {"status", std::string(finite ? "ok" : "nonfinite")}};
  cell.origin = origin;
  cell.origin.emplace_back("protocol_text", s.protocol_text);
  std::vector<std::int64_t> contexts, counts;
  std::vector<double> means;
  for (const PositionBin& bin : s.bins) {
    if (bin.tokens == 0) continue;
    contexts.push_back(bin.context), counts.push_back(bin.tokens), means.push_back(bin.nll);
  }
  cell.origin.emplace_back("bin_context", contexts);
  cell.origin.emplace_back("bin_tokens", counts);
  cell.origin.emplace_back("bin_nll", means);
  if (!finite) {
    cell.origin.emplace_back("nonfinite_window", std::int64_t{s.nonfinite_window});
    // Counted from 0 among the window's predictions: token j is predicted at position j - 1.
    cell.origin.emplace_back("nonfinite_position", std::int64_t{s.nonfinite_token - 1});
  }
  return cell;
}

CellKey key_of(const Setting& setting, const Request& request) {
  return {setting.arg, request.protocol, request.length};
}

const CellRow* find_known(const KnownCells& known, const Setting& setting, const Request& request) {
  const auto it = known.find(key_of(setting, request));
  return it == known.end() ? nullptr : &it->second;
}

/// The request whose losses go into the files of losses.
const Request* nll_request(const Grid& grid, const Evaluation& evaluation) {
  if (grid.nll_files.empty()) return nullptr;
  for (const Request& r : evaluation.requests) {
    if (r.protocol == "prefix" && r.length == grid.longest()) return &r;
  }
  return nullptr;
}

/// The names in `--protocol` arguments, which may hold several separated by commas.
std::vector<std::string> protocol_list(const std::vector<std::string>& arguments) {
  std::vector<std::string> names;
  for (const std::string& argument : arguments) {
    for (std::size_t at = 0; at <= argument.size();) {
      const std::size_t comma = std::min(argument.find(',', at), argument.size());
      const std::string name = argument.substr(at, comma - at);
      if (std::find(std::begin(protocol_names), std::end(protocol_names), name) ==
          std::end(protocol_names)) {
        const std::string near = nearest(
            name,
            std::vector<std::string_view>(std::begin(protocol_names), std::end(protocol_names)));
        fail_usage("--protocol", escaped(name),
                   fmt::format("one of: {}", fmt::join(protocol_names, ", ")),
                   near.empty() ? "" : "Did you mean " + near + "?");
      }
      if (std::find(names.begin(), names.end(), name) != names.end()) {
        fail_usage("--protocol", escaped(name) + " twice", "each protocol once");
      }
      names.push_back(name);
      at = comma + 1;
    }
  }
  return names;
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

DataNeeds Grid::needs() const {
  const auto is_prefix = [](const std::string& name) { return name == "prefix"; };
  return {.prefix = std::any_of(protocols.begin(), protocols.end(), is_prefix),
          .others = !std::all_of(protocols.begin(), protocols.end(), is_prefix),
          .longest = longest()};
}

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

Row grid_configuration(const Grid& grid, const Evaluation& evaluation, const ModelOptions& options,
                       const LoadedModel& model, const ScoringData& data) {
  std::vector<std::string> ropes, args, protocols;
  for (const Setting& s : grid.settings) ropes.push_back(s.canonical), args.push_back(s.arg);
  for (const Request& r : evaluation.requests) {
    protocols.push_back(canonical_text(evaluation.plan(r).protocol));
  }
  return {{"schema", row_schema},
          {"numerics_id", std::string(numerics_id)},
          {"dtype", options.dtype},
          {"angles", options.angles},
          {"pair_layout", std::string(pair_layout_name(model.llama.config.pair_layout))},
          {"seed", options.seed},
          {"weights_hash", hash_text(model.weights_hash)},
          {"data_hash", hash_text(data.hash)},
          {"window_tokens", std::int64_t{data.window_tokens}},
          {"windows", std::int64_t{data.windows()}},
          {"protocol", grid.protocols},
          {"protocol_text", protocols},
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
          {"build", fmt::format("{} {}", ropewalk_build::build_type, ropewalk_build::flags)},
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

Evaluation make_evaluation(const Grid& grid, const ScoringData& data) {
  Evaluation e;
  // Without BOS both readings of the input begin with the same ids, so that passes can be shared.
  const DataNeeds needs = grid.needs();
  const bool same_ids =
      needs.prefix && needs.others && data.runs.ids.size() <= data.whole.ids.size() &&
      std::equal(data.runs.ids.begin(), data.runs.ids.end(), data.whole.ids.begin());
  if (needs.prefix) e.groups.push_back({.text = data.runs.view()});
  if (needs.others && !same_ids) e.groups.push_back({});
  if (needs.others) e.groups.back().text = data.whole.view();
  for (const std::string& name : grid.protocols) {
    for (const index_t length : grid.lengths) {
      const bool runs = name == "prefix";
      const Protocol protocol =
          make_protocol(name, length,
                        {.stride = takes_stride(name) ? grid.stride : 0,
                         .min_document_tokens = name == "yarn_truncate" ? grid.longest() : 0,
                         .window_tokens = runs ? data.window_tokens : 0});
      WindowPlan plan = lower(protocol, runs ? data.runs.view() : data.whole.view());
      if (runs) {
        plan.words = data.words;
        plan.text_bytes = data.text_bytes;
      } else if (data.window_limit &&
                 *data.window_limit < static_cast<std::int64_t>(plan.windows.size())) {
        plan.windows.resize(static_cast<std::size_t>(*data.window_limit));
        plan.words = 0;  // of the whole text, of which a part is read
      }
      const std::size_t group = runs ? 0 : e.groups.size() - 1;
      std::vector<WindowPlan>& plans = e.groups[group].plans;
      e.requests.push_back({name, length, group, static_cast<index_t>(plans.size())});
      plans.push_back(std::move(plan));
    }
  }
  return e;
}

std::vector<SettingPasses> plan_settings(const Grid& grid, const Evaluation& evaluation,
                                         const KnownCells& known) {
  const Request* with_file = nll_request(grid, evaluation);
  std::vector<bool> compared(evaluation.requests.size());  // some later setting is to be computed
  for (std::size_t i = grid.settings.size(); i-- > 1;) {
    for (std::size_t r = 0; r < compared.size(); ++r) {
      if (find_known(known, grid.settings[i], evaluation.requests[r]) == nullptr) {
        compared[r] = true;
      }
    }
  }
  std::vector<SettingPasses> out;
  for (std::size_t i = 0; i < grid.settings.size(); ++i) {
    SettingPasses passes;
    for (const RequestGroup& group : evaluation.groups) {
      const PassPlan& plan =
          passes.plans.emplace_back(plan_passes(group.plans, grid.settings[i].policy));
      passes.needed.emplace_back(plan.passes.size());
      passes.last.emplace_back();
      for (const std::vector<index_t>& used : plan.pass_of) {
        passes.last.back().push_back(*std::max_element(used.begin(), used.end()));
      }
    }
    for (std::size_t r = 0; r < compared.size(); ++r) {
      const Request& request = evaluation.requests[r];
      const bool needed = find_known(known, grid.settings[i], request) == nullptr ||
                          &request == with_file || (i == 0 && compared[r]);
      if (!needed) continue;
      const PassPlan& plan = passes.plans[request.group];
      for (const index_t p : plan.pass_of[static_cast<std::size_t>(request.index)]) {
        passes.needed[request.group][static_cast<std::size_t>(p)] = true;
      }
    }
    out.push_back(std::move(passes));
  }
  return out;
}

Executor StoppableExecutor::executor() {
  return {this, inner_.workers(), [](void* self, WorkerTask task) {
            check_stop();
            static_cast<StoppableExecutor*>(self)->inner_.run(task);
          }};
}

namespace {

/// Runs the settings of a grid one after the other.
class GridRunner {
 public:
  GridRunner(const GridRun& run, const KnownCells& known)
      : run_(run),
        known_(known),
        passes_(plan_settings(run.grid, run.evaluation, known)),
        executor_(run.model.threads.executor()),
        progress_(run.quiet, run.command, static_cast<std::int64_t>(run.grid.cells()),
                  total_work()) {}

  void run_setting(std::size_t i,
                   const std::function<void(const Setting&, const CellRow&)>& finished) {
    const Setting& setting = run_.grid.settings[i];
    setting_ = i;
    computed_.clear();
    Stores& stores = i == 0 ? first_ : own_;
    stores = open_stores(setting);
    try {
      for (std::size_t g = 0; g < stores.size(); ++g) run_group(g, *stores[g]);
    } catch (const Stopped&) {
      progress_.clear();
      for (const auto& store : stores) store->flush();
      throw;
    }
    write_losses(stores);
    progress_.clear();
    for (std::size_t r = 0; r < run_.evaluation.requests.size(); ++r) {
      const CellRow* before = find_known(known_, setting, run_.evaluation.requests[r]);
      finished(setting, before != nullptr ? *before : computed_.at(r));
    }
    progress_.add_cells(static_cast<std::int64_t>(run_.evaluation.requests.size()));
    if (i > 0) remove(stores);
  }
  /// The rows are all there: losses need not be kept any longer.
  void finish() { remove(first_); }

 private:
  using Stores = std::vector<std::unique_ptr<PassStore>>;

  double work_of(const Pass& pass) const {
    return forward_flops(run_.model.llama.config, pass.num_tokens() - 1);
  }
  double total_work() const {
    double work = 0;
    for (const SettingPasses& s : passes_) {
      for (std::size_t g = 0; g < s.plans.size(); ++g) {
        for (std::size_t p = 0; p < s.plans[g].passes.size(); ++p) {
          if (s.needed[g][p]) work += work_of(s.plans[g].passes[p]);
        }
      }
    }
    return work;
  }
  Stores open_stores(const Setting& setting) const {
    Stores stores;
    for (std::size_t g = 0; g < run_.evaluation.groups.size(); ++g) {
      const std::uint64_t key =
          Hasher()
              .text(std::get<std::string>(value_of(run_.origin, "config_hash")))
              .text(setting.arg)
              .value(static_cast<std::uint64_t>(g))
              .digest();
      stores.push_back(std::make_unique<PassStore>(
          run_.folder == nullptr ? std::string()
                                 : run_.folder->path() + "/losses-" + hash_text(key) + ".bin",
          key, passes_[setting_].plans[g].passes));
      if (stores.back()->restored() > 0) {
        remark(run_.quiet,
               fmt::format("resuming {}: {} of {} passes are there", setting.arg,
                           stores.back()->restored(), passes_[setting_].plans[g].passes.size()));
      }
    }
    return stores;
  }
  static void remove(Stores& stores) {
    for (const auto& store : stores) store->remove();
    stores.clear();
  }

  void run_group(std::size_t g, PassStore& store) {
    const Setting& setting = run_.grid.settings[setting_];
    const SettingPasses& passes = passes_[setting_];
    const PassPlan& plan = passes.plans[g];
    const Runner<float> runner{.model = &run_.model.llama,
                               .kernels = &run_.model.kernels,
                               .executor = executor_.executor(),
                               .workspace = &workspace_,
                               .precision = run_.model.precision};
    RunnerScorer<float, AnyFrequency> score(runner, setting.policy);
    CompensatedSum sum;
    std::int64_t scored = 0;
    for (std::size_t p = 0; p < plan.passes.size(); ++p) {
      const Pass& pass = plan.passes[p];
      if (passes.needed[g][p] && !store.has(p)) {
        check_stop();
        const PassLosses losses =
            score_passes(PassPlan{.passes = {pass}}, run_.evaluation.groups[g].text.ids, score);
        store.add(p, losses.nll, losses.top1);
        for (const double nll : losses.nll) sum.add(nll);
        scored += static_cast<std::int64_t>(losses.nll.size());
        progress_.add(pass.num_tokens() - 1, work_of(pass),
                      fmt::format("{} ppl {:.4g}", setting.arg,
                                  std::exp(sum.value() / static_cast<double>(scored))));
      } else if (passes.needed[g][p]) {
        progress_.skip(work_of(pass));
      }
      take_finished(g, static_cast<index_t>(p), store);
    }
  }

  /// Makes the rows whose last pass is `pass`.
  void take_finished(std::size_t g, index_t pass, const PassStore& store) {
    const Setting& setting = run_.grid.settings[setting_];
    for (std::size_t r = 0; r < run_.evaluation.requests.size(); ++r) {
      const Request& request = run_.evaluation.requests[r];
      const auto index = static_cast<std::size_t>(request.index);
      if (request.group != g || passes_[setting_].last[g][index] != pass) continue;
      const CellRow* before = find_known(known_, setting, request);
      if (before != nullptr && !is_complete(g, index, store)) continue;
      const CellRow row = make_row(request, store);
      if (before != nullptr) {
        compare_again(setting, request, *before, row);
      } else if (run_.folder != nullptr) {
        run_.folder->append(row);
      }
      computed_.emplace(r, row);
    }
  }
  bool is_complete(std::size_t g, std::size_t index, const PassStore& store) const {
    const std::vector<index_t>& used = passes_[setting_].plans[g].pass_of[index];
    return std::all_of(used.begin(), used.end(),
                       [&](index_t p) { return store.has(static_cast<std::size_t>(p)); }) &&
           (setting_ == 0 || is_complete_first(g, index));
  }
  bool is_complete_first(std::size_t g, std::size_t index) const {
    const std::vector<index_t>& used = passes_[0].plans[g].pass_of[index];
    return std::all_of(used.begin(), used.end(),
                       [&](index_t p) { return first_[g]->has(static_cast<std::size_t>(p)); });
  }
  CellRow make_row(const Request& request, const PassStore& store) const {
    const Setting& setting = run_.grid.settings[setting_];
    const RequestGroup& group = run_.evaluation.groups[request.group];
    const WindowPlan& plan = run_.evaluation.plan(request);
    const auto read = [&](std::size_t i, const PassStore& from) {
      return read_losses(passes_[i].plans[request.group], from.losses(), plan, request.index);
    };
    const ScoredLosses own = read(setting_, store);
    std::optional<ScoredLosses> first;
    if (setting_ > 0) first = read(0, *first_[request.group]);
    const FrequencyPlan frequencies = plan_of(
        setting, {.rotary_dim = run_.model.llama.config.head_dim, .seq_len = request.length});
    return make_cell(setting, frequencies, request, group, {own, first ? &*first : nullptr},
                     run_.origin);
  }
  static void compare_again(const Setting& setting, const Request& request, const CellRow& before,
                            const CellRow& now) {
    if (to_json(before.results) == to_json(now.results)) return;
    fail({.kind = ErrorClass::state,
          .where = setting.arg + " at length " + std::to_string(request.length),
          .found = "nll " + to_json(value_of(now.results, "nll")) + " now, " +
                   to_json(value_of(before.results, "nll")) + " in the results folder",
          .expected = "the same bits: results do not depend on when they are computed",
          .fix = "Give another --out, and report this"});
  }

  void write_losses(const Stores& stores) const {
    const Request* request = nll_request(run_.grid, run_.evaluation);
    if (request == nullptr) return;
    const ScoredLosses losses =
        read_losses(passes_[setting_].plans[request->group], stores[request->group]->losses(),
                    run_.evaluation.plan(*request), request->index);
    write_npy(run_.grid.nll_files[setting_],
              {losses.nll.data(), {losses.windows(), request->length}});
  }

  const GridRun& run_;
  const KnownCells& known_;
  std::vector<SettingPasses> passes_;
  StoppableExecutor executor_;
  Progress progress_;
  Workspace workspace_;
  Stores first_, own_;  ///< losses of the first setting, kept for the differences; of the current
  std::size_t setting_ = 0;
  std::map<std::size_t, CellRow> computed_;  ///< of the current setting, by request
};

}  // namespace

void run_grid(const GridRun& run,
              const std::function<void(const Setting&, const CellRow&)>& finished) {
  static const KnownCells none;
  GridRunner runner(run, run.folder == nullptr ? none : run.folder->known());
  for (std::size_t i = 0; i < run.grid.settings.size(); ++i) runner.run_setting(i, finished);
  runner.finish();
}

void add_grid_options(Options& options, GridOptions& out, const std::string& what_rope,
                      const std::string& what_nll) {
  add_data_options(options, out.data);
  options.texts("--rope", "SPEC", out.rope, what_rope);
  options.sizes("--lengths,--length", out.lengths, "Context lengths in tokens, such as 512,1K,2K");
  std::string names;
  for (const std::string_view name : protocol_names) {
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  options.texts("--protocol", "NAME", out.protocol,
                "What perplexity means, one or several of: " + names + " [prefix]");
  options.size("--stride", 1, out.stride,
               "Tokens from window to window, for the protocols that have a stride [theirs]");
  options.text("--nll-out", "FILE.npy", out.nll_out, what_nll);
  options.choice("--format", {"table", "csv", "jsonl"}, out.format, "Form of the rows on stdout");
  options.flag("--by-position", out.by_position,
               "Losses by context length [1, 2), [2, 4), ... instead of the table");
  options.flag("--dry-run", out.dry_run,
               "Only tell tokens, operations, memory and time; write nothing");
  add_model_options(options, out.model);
}

void check_grid_options(const GridOptions& options) {
  if (options.lengths.empty()) {
    fail_usage("--lengths", "nothing", "context lengths such as 128,256,512");
  }
  const std::vector<std::string> names = protocol_list(options.protocol);
  const bool stride = std::any_of(names.begin(), names.end(), takes_stride);
  if (options.stride && !stride) {
    fail_usage("--stride", std::to_string(*options.stride) + " with " + names.front(),
               fmt::format("a protocol with a stride: {}", fmt::join(strided_protocols, ", ")));
  }
  if (!options.nll_out.empty() && std::find(names.begin(), names.end(), "prefix") == names.end()) {
    fail_usage("--nll-out", "protocol " + names.front(), "protocol prefix among the protocols");
  }
  if (options.data.texts.empty() == options.data.tokens.empty()) {
    fail_usage(
        "--text",
        options.data.tokens.empty() ? "neither --text nor --tokens" : "both --text and --tokens",
        "--text FILE... or --tokens FILE");
  }
}

Grid make_grid(const GridOptions& options, const LoadedModel& model) {
  Grid grid{.settings = parse_settings(options.rope, model),
            .protocols = protocol_list(options.protocol),
            .stride = static_cast<index_t>(options.stride.value_or(0))};
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
