// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// From a model, a policy and protocols to their figures, in one call.

#include <span>
#include <vector>

#include "ropewalk/eval/score_passes.hpp"
#include "ropewalk/eval/summary.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The figures of each protocol (eval/protocol_presets.hpp) over the text, in their order, from the
/// fewest passes that serve them all.
/// \throws Error(usage) for a protocol that does not fit the text; as make_frequency_plan
template <class T, FrequencyPolicy P>
std::vector<ProtocolSummary> evaluate(const Runner<T>& run, const P& policy, const EvalText& text,
                                      std::span<const Protocol> protocols) {
  std::vector<WindowPlan> requests;
  for (const Protocol& p : protocols) requests.push_back(lower(p, text));
  const PassPlan plan = plan_passes(std::span<const WindowPlan>(requests), policy);
  const PassLosses losses = score_passes(plan, text.ids, RunnerScorer(run, policy));
  std::vector<ProtocolSummary> out;
  for (std::size_t r = 0; r < requests.size(); ++r) {
    out.push_back(summarize(requests[r], text,
                            read_losses(plan, losses, requests[r], static_cast<index_t>(r))));
  }
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
