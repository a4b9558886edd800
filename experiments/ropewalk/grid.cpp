// SPDX-License-Identifier: Apache-2.0
#include "grid.hpp"

#include <algorithm>

#include "ropewalk/eval/protocol_presets.hpp"

namespace cli {

index_t Grid::longest() const { return *std::max_element(lengths.begin(), lengths.end()); }

DataNeeds Grid::needs() const {
  const auto is_prefix = [](const std::string& name) { return name == "prefix"; };
  return {.prefix = std::any_of(protocols.begin(), protocols.end(), is_prefix),
          .others = !std::all_of(protocols.begin(), protocols.end(), is_prefix),
          .longest = longest()};
}

CellKey key_of(const Setting& setting, const Request& request) {
  return {setting.arg, request.protocol, request.length};
}

const CellRow* find_known(const KnownCells& known, const Setting& setting, const Request& request) {
  const auto it = known.find(key_of(setting, request));
  return it == known.end() ? nullptr : &it->second;
}

const Request* nll_request(const Grid& grid, const Evaluation& evaluation) {
  if (grid.nll_files.empty()) return nullptr;
  for (const Request& r : evaluation.requests) {
    if (r.protocol == "prefix" && r.length == grid.longest()) return &r;
  }
  return nullptr;
}

Row grid_configuration(const Grid& grid, const Evaluation& evaluation, const ModelOptions& options,
                       const LoadedModel& model, const ScoringData& data) {
  std::vector<std::string> ropes, args, protocols;
  for (const Setting& s : grid.settings) ropes.push_back(s.canonical), args.push_back(s.arg);
  for (const Request& r : evaluation.requests) {
    protocols.push_back(canonical_text(evaluation.plan(r).protocol));
  }
  return {{"schema", row_schema},
          {"numerics_id", std::string(model.numerics())},
          {"dtype", options.dtype},
          {"angles", options.angles},
          {"pair_layout", std::string(pair_layout_name(model.config().pair_layout))},
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
                        {.stride = find_protocol(name).has_stride ? grid.stride : 0,
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

}  // namespace cli
