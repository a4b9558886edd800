// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Training sequences from documents that are laid end to end and cut into windows.

#include <algorithm>
#include <span>
#include <vector>

#include "ropewalk/core/permutation.hpp"
#include "ropewalk/train/trainer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Documents side by side; owned elsewhere.
struct PackedDocuments {
  std::span<const TokenId> ids = {};
  std::span<const std::int64_t> cu_seqlens = {};  ///< starts of the documents, and ids.size()
};

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
    require(documents.cu_seqlens.size() >= 2 && documents.cu_seqlens.front() == 0 &&
                documents.cu_seqlens.back() == std::ssize(documents.ids),
            "cu_seqlens from 0 to the number of ids");
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
    const auto ids = documents_.ids.subspan(static_cast<std::size_t>(first),
                                            static_cast<std::size_t>(length_) + 1);
    TrainingSequence s{.tokens = {ids.begin(), ids.end() - 1},
                       .targets = {ids.begin() + 1, ids.end()},
                       .loss_weights = {},
                       .cu_seqlens = {0},
                       .positions = {}};
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

/// Deals sequences out to the parts of a mixture so that after any number of them each part has its
/// share of the tokens within one sequence: the next one goes to the part that is furthest behind.
class MixtureDealer {
 public:
  /// \param shares  relative; \param dealt  sequences that each part had already, or none
  explicit MixtureDealer(std::vector<double> shares, std::vector<std::int64_t> dealt = {})
      : shares_(std::move(shares)), dealt_(std::move(dealt)) {
    require(!shares_.empty(), "at least one part of the mixture");
    double sum = 0;
    for (const double s : shares_) {
      require(s > 0, "shares above 0");
      sum += s;
    }
    for (double& s : shares_) s /= sum;
    if (dealt_.empty()) dealt_.resize(shares_.size());
    require(dealt_.size() == shares_.size(), "a count for each part");
  }
  struct Turn {
    std::size_t part;
    std::int64_t index;  ///< of the part's own sequences
  };
  Turn next() {
    std::int64_t total = 1;
    for (const std::int64_t n : dealt_) total += n;
    std::size_t part = 0;
    double furthest = 0;
    for (std::size_t p = 0; p < shares_.size(); ++p) {
      const double behind =
          std::fma(shares_[p], static_cast<double>(total), -static_cast<double>(dealt_[p]));
      if (p == 0 || behind > furthest) part = p, furthest = behind;
    }
    return {part, dealt_[part]++};
  }
  const std::vector<std::int64_t>& dealt() const { return dealt_; }

 private:
  std::vector<double> shares_;
  std::vector<std::int64_t> dealt_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
