// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// MixtureDealer: which part of a data mixture gives the next sequence.

#include <cmath>
#include <utility>
#include <vector>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Deals sequences out to the parts of a mixture so that each part has its share of the tokens
/// within two of the longest sequences: the next one goes to the part that is furthest behind.
class MixtureDealer {
 public:
  /// What a part gave so far.
  struct Dealt {
    std::int64_t sequences = 0;
    std::int64_t tokens = 0;
  };
  /// \param shares  of the tokens, relative \param dealt  what each part gave already, or none
  /// \throws Error(usage)
  explicit MixtureDealer(std::vector<double> shares, std::vector<Dealt> dealt = {})
      : shares_(std::move(shares)), dealt_(std::move(dealt)) {
    require(!shares_.empty(), "at least one part of the mixture");
    double sum = 0;
    for (const double s : shares_) {
      require(s > 0, "shares above 0");
      sum += s;
    }
    for (double& s : shares_) s /= sum;
    if (dealt_.empty()) dealt_.resize(shares_.size());
    require(dealt_.size() == shares_.size(), "what each part gave");
  }

  /// The part that gives the next sequence, its own number dealt()[part].sequences.
  std::size_t next() const {
    std::int64_t total = 1;
    for (const Dealt& d : dealt_) total += d.tokens;
    std::size_t part = 0;
    double furthest = 0;
    for (std::size_t p = 0; p < shares_.size(); ++p) {
      const double behind =
          std::fma(shares_[p], static_cast<double>(total), -static_cast<double>(dealt_[p].tokens));
      if (p == 0 || behind > furthest) part = p, furthest = behind;
    }
    return part;
  }
  /// That part gave a sequence of so many tokens.
  void deal(std::size_t part, index_t tokens) {
    ++dealt_[part].sequences;
    dealt_[part].tokens += tokens;
  }
  const std::vector<Dealt>& dealt() const { return dealt_; }

 private:
  std::vector<double> shares_;
  std::vector<Dealt> dealt_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
