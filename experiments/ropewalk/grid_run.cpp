// SPDX-License-Identifier: Apache-2.0
#include "grid_run.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "ropewalk/eval/compensated_sum.hpp"
#include "ropewalk/eval/score_passes.hpp"
#include "ropewalk/io/npy.hpp"
#include "ropewalk/model/cost.hpp"

#include "pass_store.hpp"
#include "progress.hpp"
#include "results_folder.hpp"
#include "stop_signal.hpp"

namespace cli {

Executor StoppableExecutor::executor() {
  return {this, inner_.workers(),
          [](void* self, WorkerTask task) {
            check_stop();
            static_cast<StoppableExecutor*>(self)->inner_.run(task);
          },
          inner_.concurrent()};
}

namespace {

using Finished = std::function<void(const Setting&, const CellRow&)>;

/// Runs the batches of a grid one after the other, and finishes settings as their passes are done.
class GridRunner {
 public:
  GridRunner(const GridRun& run, const KnownCells& known, const Finished& finished)
      : run_(run),
        known_(known),
        finished_(finished),
        executor_(run.model.threads.executor()),
        progress_(run.quiet, run.command, static_cast<std::int64_t>(run.grid.cells()),
                  total_work()) {}

  void run_all() {
    const GridBatches& batches = run_.batches;
    try {
      std::size_t begin = 0;
      for (const std::size_t end : batches.ends) {
        finish_settings(batches.passes[begin].setting);
        run_batch(std::span(batches.passes).subspan(begin, end - begin));
        begin = end;
      }
      finish_settings(run_.grid.settings.size());
    } catch (const Stopped&) {
      progress_.clear();
      for (auto& [setting, state] : open_) {
        for (const auto& store : state.stores) store->flush();
      }
      throw;
    }
    // The rows are all there: losses need not be kept any longer.
    remove(open_[0].stores);
  }

 private:
  using Stores = std::vector<std::unique_ptr<PassStore>>;

  /// A setting that has begun: its losses, one store a group, and the rows made of them.
  struct Open {
    Stores stores = {};
    std::map<std::size_t, CellRow> computed = {};  ///< by request
    CompensatedSum nll = {};                       ///< of what this run has scored
    std::int64_t scored = 0;
  };

  const Pass& pass_of(const GridPass& p) const { return cli::pass_of(run_.settings, p); }
  double work_of(const GridPass& p) const {
    return forward_flops(run_.model.config(), pass_of(p).num_fed());
  }
  double total_work() const {
    double work = 0;
    for (const GridPass& p : run_.batches.passes) work += work_of(p);
    return work;
  }

  Open& open(std::size_t s) {
    const auto [it, is_new] = open_.try_emplace(s);
    if (is_new) it->second.stores = open_stores(s);
    return it->second;
  }
  Stores open_stores(std::size_t s) const {
    const Setting& setting = run_.grid.settings[s];
    Stores stores;
    for (std::size_t g = 0; g < run_.evaluation.groups.size(); ++g) {
      const std::vector<Pass>& passes = run_.settings[s].plans[g].passes;
      const std::uint64_t key =
          Hasher()
              .text(std::get<std::string>(value_of(run_.origin, "config_hash")))
              .text(setting.arg)
              .value(static_cast<std::uint64_t>(g))
              .digest();
      stores.push_back(std::make_unique<PassStore>(
          run_.folder == nullptr ? std::string()
                                 : run_.folder->path() + "/losses-" + hash_text(key) + ".bin",
          key, passes));
      if (stores.back()->restored() > 0) {
        remark(run_.quiet, fmt::format("resuming {}: {} of {} passes are there", setting.arg,
                                       stores.back()->restored(), passes.size()));
      }
    }
    return stores;
  }
  static void remove(Stores& stores) {
    for (const auto& store : stores) store->remove();
    stores.clear();
  }

  void run_batch(std::span<const GridPass> passes) {
    batch_.clear();
    frequencies_.clear();
    std::vector<bool> runs;
    for (const GridPass& p : passes) {
      runs.push_back(!open(p.setting).stores[p.group]->has(p.pass));
      if (!runs.back()) continue;
      batch_.add(pass_of(p), run_.evaluation.groups[p.group].text.ids);
      frequencies_.push_back(run_.grid.settings[p.setting], pass_of(p).seq_len,
                             run_.model.config().head_dim);
    }
    if (batch_.size() > 0) {
      check_stop();
      run_.model.visit([&]<class T>(const ModelAs<T>& model) {
        const Runner<T> runner{.model = &model.llama,
                               .kernels = &model.kernels,
                               .executor = executor_.executor(),
                               .workspace = &workspace_,
                               .precision = run_.model.precision};
        score_batch(runner, frequencies_.of_pass(), batch_.cu_seqlens(), batch_.tokens(),
                    batch_.targets(), batch_.results());
      });
    }
    std::size_t scored = 0;
    for (std::size_t i = 0; i < passes.size(); ++i) {
      if (runs[i]) {
        take_losses(passes[i], scored++);
      } else {
        progress_.skip(work_of(passes[i]));
      }
      make_rows(passes[i]);
    }
  }
  /// Of pass i of the batch.
  void take_losses(const GridPass& p, std::size_t i) {
    Open& setting = open_.at(p.setting);
    nll_.clear();
    top1_.clear();
    batch_.read(i, nll_, top1_);
    setting.stores[p.group]->add(p.pass, nll_, top1_);
    for (const double nll : nll_) setting.nll.add(nll);
    setting.scored += static_cast<std::int64_t>(nll_.size());
    progress_.add(pass_of(p).num_fed(), work_of(p),
                  fmt::format("{} ppl {:.4g}", run_.grid.settings[p.setting].arg,
                              std::exp(setting.nll.value() / static_cast<double>(setting.scored))));
  }

  /// Makes the rows whose last pass is `p`.
  void make_rows(const GridPass& p) {
    const Setting& setting = run_.grid.settings[p.setting];
    for (std::size_t r = 0; r < run_.evaluation.requests.size(); ++r) {
      const Request& request = run_.evaluation.requests[r];
      const auto index = static_cast<std::size_t>(request.index);
      if (request.group != p.group ||
          run_.settings[p.setting].last[p.group][index] != static_cast<index_t>(p.pass)) {
        continue;
      }
      const CellRow* before = find_known(known_, setting, request);
      if (before != nullptr && !(is_complete(p.setting, request) && is_complete(0, request))) {
        continue;
      }
      const CellRow row = make_row(p.setting, request);
      if (before != nullptr) {
        compare_again(setting, request, *before, row);
      } else if (run_.folder != nullptr) {
        run_.folder->append(row);
      }
      open_.at(p.setting).computed.emplace(r, row);
    }
  }
  bool is_complete(std::size_t s, const Request& request) {
    const std::vector<index_t>& used =
        run_.settings[s].plans[request.group].pass_of[static_cast<std::size_t>(request.index)];
    const PassStore& store = *open(s).stores[request.group];
    return std::all_of(used.begin(), used.end(),
                       [&](index_t p) { return store.has(static_cast<std::size_t>(p)); });
  }
  ScoredLosses losses_of(std::size_t s, const Request& request) {
    return read_losses(run_.settings[s].plans[request.group],
                       open(s).stores[request.group]->losses(), run_.evaluation.plan(request),
                       request.index);
  }
  CellRow make_row(std::size_t s, const Request& request) {
    const Setting& setting = run_.grid.settings[s];
    const ScoredLosses own = losses_of(s, request);
    std::optional<ScoredLosses> first;
    if (s > 0) first = losses_of(0, request);
    const FrequencyPlan frequencies =
        plan_of(setting, {.rotary_dim = run_.model.config().head_dim, .seq_len = request.length});
    return make_cell({.setting = setting,
                      .frequencies = frequencies,
                      .protocol = request.protocol,
                      .length = request.length,
                      .plan = run_.evaluation.plan(request),
                      .text = run_.evaluation.groups[request.group].text,
                      .losses = own,
                      .first = first ? &*first : nullptr,
                      .known = run_.data.runs.known},
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

  /// Finishes the settings before `end`: none of them has a pass to come.
  void finish_settings(std::size_t end) {
    for (; next_ < end; ++next_) {
      Open& state = open(next_);
      const Setting& setting = run_.grid.settings[next_];
      write_losses(next_);
      progress_.clear();
      for (std::size_t r = 0; r < run_.evaluation.requests.size(); ++r) {
        const CellRow* before = find_known(known_, setting, run_.evaluation.requests[r]);
        finished_(setting, before != nullptr ? *before : state.computed.at(r));
      }
      progress_.add_cells(static_cast<std::int64_t>(run_.evaluation.requests.size()));
      // Differences are to the first setting: its losses are kept to the end.
      if (next_ == 0) continue;
      remove(state.stores);
      open_.erase(next_);
    }
  }
  void write_losses(std::size_t s) {
    const Request* request = nll_request(run_.grid, run_.evaluation);
    if (request == nullptr) return;
    const ScoredLosses losses = losses_of(s, *request);
    write_npy(run_.grid.nll_files[s], {losses.nll.data(), {losses.windows(), request->length}});
  }

  /// Frequency plans of a batch's passes; neighbours that have equal ones share one.
  class BatchFrequencies {
   public:
    void clear() {
      plans_.clear();
      of_pass_.clear();
    }
    void push_back(const Setting& setting, std::int64_t seq_len, index_t head_dim) {
      const std::int64_t key = setting.policy.length_key(seq_len);
      if (plans_.empty() || last_ != &setting || key_ != key) {
        plans_.push_back(std::make_unique<FrequencyPlan>(
            plan_of(setting, {.rotary_dim = head_dim, .seq_len = seq_len})));
      }
      last_ = &setting;
      key_ = key;
      of_pass_.push_back(plans_.back().get());
    }
    std::span<const FrequencyPlan* const> of_pass() const { return of_pass_; }

   private:
    std::vector<std::unique_ptr<FrequencyPlan>> plans_;
    std::vector<const FrequencyPlan*> of_pass_;
    const Setting* last_ = nullptr;
    std::int64_t key_ = 0;
  };

  const GridRun& run_;
  const KnownCells& known_;
  const Finished& finished_;
  StoppableExecutor executor_;
  Progress progress_;
  Workspace workspace_;
  PassBatch batch_;
  BatchFrequencies frequencies_;
  std::map<std::size_t, Open> open_;  ///< the first setting, and those with passes to come
  std::size_t next_ = 0;              ///< the first setting that is not finished
  std::vector<double> nll_;
  std::vector<std::uint8_t> top1_;
};

}  // namespace

void run_grid(const GridRun& run, const Finished& finished) {
  static const KnownCells none;
  GridRunner(run, run.folder == nullptr ? none : run.folder->known(), finished).run_all();
}

}  // namespace cli
