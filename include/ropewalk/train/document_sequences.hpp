// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Documents as sequences of their own, those of similar length side by side.

#include <algorithm>
#include <vector>

#include "ropewalk/train/token_windows.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Each document a sequence, one that is longer than `most` several; what has no target is left
/// out. In each epoch sequences come in runs of similar length of about `batch_tokens` tokens, the
/// runs in another random order (arXiv:2410.02660, section 3: batches by length keep the work of a
/// step even). Sequence i is a function of (documents, i, random).
class DocumentSequences {
 public:
  /// \throws Error(usage) when there is no target
  DocumentSequences(PackedDocuments documents, index_t most, index_t batch_tokens, Random random)
      : documents_(documents), random_(random) {
    check(documents);
    require(most >= 1 && batch_tokens >= 1, "lengths of at least 1");
    for (std::size_t d = 0; d + 1 < documents.cu_seqlens.size(); ++d) {
      const std::int64_t last = documents.cu_seqlens[d + 1] - 1;
      for (std::int64_t first = documents.cu_seqlens[d]; first < last; first += most) {
        const Piece p{first, std::min<index_t>(most, last - first)};
        if (has_target(p)) pieces_.push_back(p);
      }
    }
    require(!pieces_.empty(), "a document of at least two tokens");
    std::ranges::stable_sort(pieces_, {}, &Piece::size);
    index_t tokens = 0;
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      if (i == 0 || tokens + pieces_[i].size > batch_tokens) {
        runs_.push_back(i);
        tokens = 0;
      }
      tokens += pieces_[i].size;
    }
    runs_.push_back(pieces_.size());
  }

  /// Sequences of an epoch.
  std::int64_t sequences() const { return std::ssize(pieces_); }
  /// Tokens of sequence i of all epochs, one after the other.
  index_t size(std::int64_t i) { return piece(i).size; }
  TrainingSequence sequence(std::int64_t i) {
    const Piece p = piece(i);
    return sequence_of(documents_, p.first, p.size);
  }

 private:
  struct Piece {
    std::int64_t first;
    index_t size;
  };
  bool has_target(const Piece& p) const {
    if (documents_.loss_weights.empty()) return true;
    const auto weights = documents_.loss_weights.subspan(static_cast<std::size_t>(p.first) + 1,
                                                         static_cast<std::size_t>(p.size));
    return std::ranges::any_of(weights, [](float w) { return w > 0; });
  }
  const Piece& piece(std::int64_t i) {
    if (i / sequences() != epoch_) make_order(i / sequences());
    return pieces_[order_[static_cast<std::size_t>(i % sequences())]];
  }
  void make_order(std::int64_t epoch) {
    epoch_ = epoch;
    order_.clear();
    Random random = random_;
    random.step = static_cast<std::uint32_t>(epoch);
    const Permutation runs(runs_.size() - 1, random);
    for (std::size_t r = 0; r + 1 < runs_.size(); ++r) {
      const std::size_t run = runs(r);
      for (std::size_t i = runs_[run]; i < runs_[run + 1]; ++i) order_.push_back(i);
    }
  }

  PackedDocuments documents_;
  Random random_;
  std::vector<Piece> pieces_;      // shortest first
  std::vector<std::size_t> runs_;  // where they start in pieces_, and its end
  std::int64_t epoch_ = -1;
  std::vector<std::size_t> order_;  // of pieces_ in this epoch
};

}  // namespace ropewalk::inline ROPEWALK_ABI
