// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Training sequences from documents that are laid end to end and cut into windows.

#include <algorithm>
#include <span>
#include <vector>

#include "ropewalk/core/permutation.hpp"
#include "ropewalk/train/training_sequence.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Documents side by side; owned elsewhere.
struct PackedDocuments {
  std::span<const TokenId> ids = {};
  std::span<const std::int64_t> cu_seqlens = {};  ///< starts of the documents, and ids.size()
  std::span<const float> loss_weights = {};       ///< of each id as a target; none: all 1
};

/// \throws Error(usage)
inline void check(const PackedDocuments& d) {
  require(d.cu_seqlens.size() >= 2 && d.cu_seqlens.front() == 0 &&
              d.cu_seqlens.back() == std::ssize(d.ids),
          "cu_seqlens from 0 to the number of ids");
  require(d.loss_weights.empty() || d.loss_weights.size() == d.ids.size(),
          "a loss weight for each id, or none");
}

/// The sequence of tokens [first, first + count), whose last target is the id after them.
inline TrainingSequence sequence_of(const PackedDocuments& d, std::int64_t first, index_t count) {
  const auto at = static_cast<std::size_t>(first), ids = static_cast<std::size_t>(count) + 1;
  return d.loss_weights.empty()
             ? next_token_sequence(d.ids.subspan(at, ids))
             : weighted_sequence(d.ids.subspan(at, ids), d.loss_weights.subspan(at, ids));
}

/// In which order windows come.
enum class WindowOrder {
  random,  ///< another one each epoch
  given,   ///< the documents', in every epoch the same: sorted by length, say
};

/// Windows of `length` tokens each, one after the other without overlap; what is left at the end of
/// an epoch is not used. A token's target is the next id, but not across the end of a document
/// (`within_documents`): there nothing is scored. Window i is a function of (documents, i, random).
class TokenWindows {
 public:
  /// \throws Error(usage) when not one window fits
  TokenWindows(PackedDocuments documents, index_t length, WindowOrder order, Random random,
               bool within_documents = true)
      : documents_(documents),
        length_(length),
        order_(order),
        random_(random),
        within_documents_(within_documents) {
    require(length >= 1, "length >= 1");
    check(documents);
    windows_ = (std::ssize(documents.ids) - 1) / length;
    if (windows_ < 1) {
      fail({.kind = ErrorClass::usage,
            .field = "training text",
            .found = std::to_string(documents.ids.size()) + " tokens",
            .expected = "at least one sequence of " + std::to_string(length) + " and a token more",
            .fix = "Give a longer text or a shorter length"});
    }
  }

  /// Windows of an epoch.
  std::int64_t windows() const { return windows_; }

  /// Window i of all epochs, one after the other.
  TrainingSequence sequence(std::int64_t i) const {
    Random random = random_;
    random.step = static_cast<std::uint32_t>(i / windows_);
    const auto place = static_cast<std::uint64_t>(i % windows_);
    const auto window = order_ == WindowOrder::given
                            ? place
                            : Permutation(static_cast<std::uint64_t>(windows_), random)(place);
    const auto first = static_cast<std::int64_t>(window) * length_;
    TrainingSequence s = sequence_of(documents_, first, length_);
    s.cu_seqlens = {0};
    const auto cuts = documents_.cu_seqlens;
    for (auto cut = std::upper_bound(cuts.begin(), cuts.end(), first);
         cut != cuts.end() && *cut <= first + length_; ++cut) {
      if (within_documents_ && *cut < std::ssize(documents_.ids)) {
        s.targets[static_cast<std::size_t>(*cut - first) - 1] = not_scored;
      }
      if (*cut<first + length_&& * cut - first> s.cu_seqlens.back()) {
        s.cu_seqlens.push_back(static_cast<std::int32_t>(*cut - first));
      }
    }
    s.cu_seqlens.push_back(static_cast<std::int32_t>(length_));
    return s;
  }

 private:
  PackedDocuments documents_;
  index_t length_;
  WindowOrder order_;
  Random random_;
  bool within_documents_;
  std::int64_t windows_ = 0;
};

/// Puts documents in the order of their lengths, shortest first, equal ones as they are: a
/// curriculum of lengths (arXiv:2108.06084).
inline void sort_documents(std::vector<TokenId>& ids, std::vector<std::int64_t>& cu_seqlens) {
  struct Document {
    std::int64_t first, size;
  };
  std::vector<Document> documents;
  for (std::size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
    documents.push_back({cu_seqlens[d], cu_seqlens[d + 1] - cu_seqlens[d]});
  }
  std::ranges::stable_sort(documents, {}, &Document::size);
  std::vector<TokenId> sorted;
  sorted.reserve(ids.size());
  std::size_t d = 0;
  for (const Document& document : documents) {
    const auto from = ids.begin() + document.first;
    sorted.insert(sorted.end(), from, from + document.size);
    cu_seqlens[++d] = std::ssize(sorted);
  }
  ids = std::move(sorted);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
