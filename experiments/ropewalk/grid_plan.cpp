// SPDX-License-Identifier: Apache-2.0
#include "grid_plan.hpp"

#include <algorithm>

#include "ropewalk/eval/score_passes.hpp"

namespace cli {

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

GridBatches batch_passes(const Grid& grid, const std::vector<SettingPasses>& settings,
                         index_t head_dim, index_t batch_tokens) {
  GridBatches out;
  std::vector<index_t> fed;
  for (std::size_t s = 0; s < settings.size(); ++s) {
    for (std::size_t g = 0; g < settings[s].plans.size(); ++g) {
      for (std::size_t p = 0; p < settings[s].plans[g].passes.size(); ++p) {
        if (!settings[s].needed[g][p]) continue;
        out.passes.push_back({s, g, p});
        fed.push_back(settings[s].plans[g].passes[p].num_fed());
      }
    }
  }
  // What decides is the same at every length.
  std::vector<FrequencyPlan> frequencies;
  for (const Setting& s : grid.settings) {
    frequencies.push_back(plan_of(s, {.rotary_dim = head_dim, .seq_len = grid.longest()}));
  }
  out.ends = cut_batches(fed, batch_tokens, [&](std::size_t i) {
    return can_share_pass(frequencies[out.passes[i - 1].setting],
                          frequencies[out.passes[i].setting]);
  });
  return out;
}

}  // namespace cli
