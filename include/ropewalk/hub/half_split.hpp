// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Models of the interleaved pair layout in the half_split layout: the same pairs, rows reordered.

#include <string>
#include <utility>
#include <vector>

#include "ropewalk/hub/checkpoint_data.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Which row of a stored matrix is a row of it in the half_split layout. There channels i and
/// i + d / 2 of the part of a head that rotates are a pair, so the rows of q_proj and k_proj that
/// make 2i and 2i + 1 go there. Scores are sums of the same products, in another order.
class HalfSplitRows {
 public:
  HalfSplitRows(const LlamaConfig& config, const RopeModifiers& modifiers)
      : interleaved_(config.pair_layout == PairLayout::interleaved),
        head_dim_(config.head_dim),
        part_(rotated_part(modifiers, config.head_dim)) {}

  /// Whether rows of the parameter of this name move.
  bool moves(const std::string& name) const {
    return interleaved_ && (name.ends_with(".q_proj.weight") || name.ends_with(".k_proj.weight"));
  }
  index_t operator()(const std::string& name, index_t row) const {
    const index_t channel = row % head_dim_ - part_.first_channel;
    if (!moves(name) || channel < 0 || channel >= part_.rotary_dim) return row;
    const index_t pairs = part_.rotary_dim / 2, pair = channel % pairs;
    const index_t from =
        channel < pairs ? Interleaved::first(pair, pairs) : Interleaved::second(pair, pairs);
    return row - channel + from;
  }

 private:
  bool interleaved_;
  index_t head_dim_;
  RotatedPart part_;
};

/// Puts a loaded model in the half_split layout; of one that is, nothing changes.
template <class T>
void to_half_split(CheckpointOf<T>& model) {
  const HalfSplitRows rows(model.config, model.rope.modifiers());
  for_each_parameter(model.config, model.weights, [&]<class P>(const std::string& name, P& w) {
    if constexpr (requires { w.outputs(); }) {
      if (!rows.moves(name)) return;
      P reordered(w.outputs(), w.inputs());
      std::vector<T> row(static_cast<std::size_t>(w.inputs()));
      for (index_t r = 0; r < w.outputs(); ++r) {
        w.get_row(rows(name, r), std::span<T>(row));
        reordered.set_row(r, row);
      }
      w = std::move(reordered);
    }
  });
  model.config.pair_layout = PairLayout::half_split;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
