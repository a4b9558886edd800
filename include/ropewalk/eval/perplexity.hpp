// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Losses of windows under a frequency policy: one causal pass gives every length that may share
/// it.

#include <algorithm>
#include <span>
#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/eval/statistics.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/query_scale.hpp"
#include "ropewalk/rope/rotary_rows.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Runs of `window_tokens` ids, one after the other. Position t of a window predicts its id t + 1,
/// so a window gives window_tokens - 1 losses.
struct TokenWindows {
  std::span<const TokenId> ids;
  index_t window_tokens = 0;

  index_t count() const {
    return window_tokens < 1 ? 0 : static_cast<index_t>(ids.size()) / window_tokens;
  }
  std::span<const TokenId> operator[](index_t w) const {
    return ids.subspan(static_cast<std::size_t>(w * window_tokens),
                       static_cast<std::size_t>(window_tokens));
  }
};

/// What runs a model: kernels, threads, memory. One evaluation at a time.
template <class T>
struct Runner {
  const Llama<T>* model = nullptr;
  const KernelTable<T>* kernels = nullptr;
  Executor executor = {};
  Workspace* workspace = nullptr;
  AnglePrecision precision = AnglePrecision::exact;
};

/// Losses of one sequence whose first tokens.size() ids predict the next: results[t] for
/// targets[t]. Causal attention, positions 0, 1, ...; with cu_seqlens each document attends to
/// itself alone and its positions restart. \throws Error(usage) for shapes or ids that do not fit
template <class T>
void score_sequence(const Runner<T>& run, const FrequencyPlan& frequencies,
                    std::span<const TokenId> tokens, std::span<const TokenId> targets,
                    std::span<const std::int32_t> cu_seqlens, std::span<HeadResult> results) {
  const auto n = static_cast<index_t>(tokens.size());
  const BlockPlan blocks = make_block_plan(Causal{}, n, cu_seqlens);
  const std::vector<std::int64_t> positions = cu_seqlens.empty()
                                                  ? batch_positions(Identity{}, n)
                                                  : batch_positions(DocumentRestart{cu_seqlens});
  const RotaryRows rows = make_rotary_rows(frequencies, positions, run.precision);
  const std::vector<float> query_scale = make_query_scale(frequencies, positions);
  const RotationPair rotation{&rows, &rows};
  const LayerPlan layer{.branches = {&rotation, 1},
                        .blocks = &blocks,
                        .logit_scale = frequencies.logit_scale,
                        .query_scale = query_scale,
                        .rope_hash = frequencies.rope_hash};
  forward(*run.model, std::span(&layer, 1),
          {.tokens = tokens, .targets = targets, .positions = positions, .cu_seqlens = cu_seqlens},
          nullptr, *run.kernels, run.executor, *run.workspace, results);
}

/// Losses of the first `length` positions of windows [range.begin, range.end): row w of the result
/// is window range.begin + w. after_window(w) is called after each and may throw to stop.
/// \throws Error(usage) when a window is too short for the length
template <class T, class AfterWindow>
WindowLosses score_windows(const Runner<T>& run, const FrequencyPlan& frequencies,
                           const TokenWindows& windows, Interval range, index_t length,
                           AfterWindow&& after_window) {
  require(length >= 1 && length < windows.window_tokens, "1 <= length < window_tokens");
  require(range.begin >= 0 && range.end <= windows.count() && !range.empty(), "existing windows");
  WindowLosses losses{.windows = range.size(), .length = length};
  const auto n = static_cast<std::size_t>(length);
  losses.nll.reserve(n * static_cast<std::size_t>(range.size()));
  losses.top1.reserve(losses.nll.capacity());
  std::vector<HeadResult> results(n);
  for (index_t w = range.begin; w < range.end; ++w) {
    const std::span<const TokenId> targets = windows[w].subspan(1, n);
    score_sequence(run, frequencies, windows[w].first(n), targets, {}, results);
    for (std::size_t t = 0; t < n; ++t) {
      losses.nll.push_back(results[t].nll);
      losses.top1.push_back(results[t].argmax == targets[t]);
    }
    after_window(w);
  }
  return losses;
}

/// Lengths that one pass serves, because the policy gives them the same frequencies: the pass runs
/// at the longest, and the others are its prefixes.
struct LengthGroup {
  std::int64_t seq_len = 0;           ///< length of the pass
  std::vector<index_t> lengths = {};  ///< ascending; the last is seq_len
};

/// Groups lengths by the policy's length_key: one group for static policies; for length-dependent
/// ones each length gets the frequencies that a fresh input of that length would get, the mode
/// `prefill(T)`.
template <FrequencyPolicy P>
std::vector<LengthGroup> group_lengths(const P& policy, std::vector<index_t> lengths) {
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  std::vector<LengthGroup> groups;
  for (const index_t length : lengths) {
    require(length >= 1, "lengths of at least 1");
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const LengthGroup& g) {
      return policy.length_key(g.seq_len) == policy.length_key(length);
    });
    LengthGroup& group = same != groups.end() ? *same : groups.emplace_back();
    group.seq_len = length;
    group.lengths.push_back(length);
  }
  return groups;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
