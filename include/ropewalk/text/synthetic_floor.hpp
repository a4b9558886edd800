// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The exact loss of ideal predictors of the synthetic language, with the whole past or a window.

#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/text/synthetic.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// As a window: the predictor sees the document from its first token on.
inline constexpr index_t whole_past = std::numeric_limits<index_t>::max();

namespace detail {

/// One document's pass of floor_nll.
class FloorPass {
 public:
  FloorPass(const SyntheticLanguage& language, std::span<const TokenId> document)
      : language_(language),
        document_(document),
        key_at_(document.size(), -1),
        opening_(document.size(), 0),
        last_mention_(as_index(language.vocab_size()), -1) {
    for (const RecordFamily& f : language.families()) text_share_ -= f.law.rate;
  }

  void run(index_t window, std::span<double> nll) {
    index_t state = language_.start_state();
    for (index_t t = 0; t < static_cast<index_t>(document_.size()); ++t) {
      const TokenId id = token(t);
      const index_t first = t > window ? t - window : 0;
      opening_[as_index(t)] = opening_probability(t);
      if (t < record_.end) {
        key_at_[as_index(t)] = record_.key_at;
        check(record_.family->has_symbol(id), t);
        nll[as_index(t)] = value_nll(first, t);
        if (record_.previous >= 0) check(id == token(record_.previous + t - record_.key_at), t);
      } else {
        nll[as_index(t)] = language_.opening_nll(state, id);
        check(elementary::is_finite(nll[as_index(t)]), t);
        // A window that shows nothing but a value's symbols does not say that they are the last.
        if (t == record_.end && in_cut_value(first) && record_.key_at < first) {
          nll[as_index(t)] += end_nll(first, t, /*ends=*/true);
        }
        const bool is_text = language_.is_text(id);
        state = is_text ? id : language_.start_state();
        if (!is_text) begin_record(t);
      }
    }
  }

 private:
  struct Record {
    index_t key_at = -1;
    index_t end = 0;        ///< one past its last token
    index_t previous = -1;  ///< place of the key's mention before
    const RecordFamily* family = nullptr;
  };

  static std::size_t as_index(index_t i) { return static_cast<std::size_t>(i); }
  TokenId token(index_t t) const { return document_[as_index(t)]; }
  void check(bool possible, index_t t) const {
    if (possible) return;
    fail({.kind = ErrorClass::mismatch,
          .where = "token " + std::to_string(t),
          .found = std::to_string(token(t)),
          .expected = "a document of this language"});
  }

  void begin_record(index_t t) {
    const RecordFamily* const f = language_.family_of_key(token(t));
    index_t& last = last_mention_[as_index(token(t))];
    record_ = {.key_at = t, .end = t + 1 + f->law.value_length, .previous = last, .family = f};
    last = t;
    key_at_[as_index(t)] = t;
  }

  /// P(no record is under way before token t): a renewal sequence.
  double opening_probability(index_t t) const {
    if (t == 0) return 1;
    double p = elementary::detail::product(text_share_, opening_[as_index(t - 1)]);
    for (const RecordFamily& f : language_.families()) {
      const index_t key_at = t - 1 - f.law.value_length;
      if (key_at >= 0) p = elementary::fma(f.law.rate, opening_[as_index(key_at)], p);
    }
    return p;
  }

  /// Whether a window from `first` on begins within a value whose key is out of sight.
  bool in_cut_value(index_t first) const {
    const index_t key_at = key_at_[as_index(first)];
    return key_at >= 0 && key_at < first;
  }

  /// A window [first, t) that shows nothing but symbols of one value: -log P(they are its last), or
  /// of the contrary. The key may have been at any place that leaves room for these symbols.
  double end_nll(index_t first, index_t t, bool ends) const {
    const index_t hidden =
        record_.family->law.value_length - (t - first);  // if the value ends at t
    double others = 0;
    for (index_t i = 0; i < std::min(hidden, first); ++i)
      others += opening_[as_index(first - 1 - i)];
    const double last = first - 1 - hidden >= 0 ? opening_[as_index(first - 1 - hidden)] : 0;
    return -elementary::log((ends ? last : others) / (others + last));
  }

  double value_nll(index_t first, index_t t) const {
    const RecordFamily& f = *record_.family;
    const auto symbols = static_cast<double>(f.law.value_symbols);
    if (record_.key_at < first) return elementary::log(symbols) + end_nll(first, t, /*ends=*/false);
    if (record_.previous >= first) return 0;
    if (in_cut_value(first)) {
      const index_t cut_key_at = key_at_[as_index(first)];
      const index_t seen = cut_key_at + 1 + f.law.value_length - first;  // symbols, if of family f
      const bool same_family = language_.family_of_key(token(cut_key_at)) == &f;
      if (same_family && t >= record_.end - seen) return cut_value_nll(first, seen, t);
    }
    return elementary::log(symbols);
  }

  /// The window begins with the last `seen` symbols of a value, perhaps that of the present key,
  /// which is new to the window, and token t is among the last `seen` symbols of its value. The
  /// cut value's key is j with a posterior ~ key_probability[j], times value_symbols for each
  /// symbol that agrees with what the window shows of j's value, and 0 if one does not.
  double cut_value_nll(index_t first, index_t seen, index_t t) const {
    const RecordFamily& f = *record_.family;
    const auto symbols = static_cast<double>(f.law.value_symbols);
    double own = 0, others = 0;
    for (index_t k = 0; k < f.law.keys; ++k) {
      const TokenId key = f.first_key + static_cast<TokenId>(k);
      const index_t mention = last_mention_[as_index(key)];
      const double p = f.key_probability[as_index(k)];
      if (mention < first) {
        others += p;
        continue;
      }
      const bool is_own = mention == record_.key_at;
      const index_t begin = mention + 1 + f.law.value_length - seen;
      const index_t end = is_own ? t : begin + seen;
      if (!agree(begin, end, first)) continue;
      double weight = p;
      for (index_t i = begin; i < end; ++i) weight *= symbols;
      (is_own ? own : others) += elementary::detail::product(weight, 1);
    }
    const index_t same = first + t - (record_.end - seen);  // place of t's symbol in the cut value
    const double match = token(t) == token(same) ? own : 0;
    return -elementary::log((match + others / symbols) / (own + others));
  }
  bool agree(index_t begin, index_t end, index_t other) const {
    const auto at = [&](index_t i) { return document_.begin() + i; };
    return std::equal(at(begin), at(end), at(other));
  }

  const SyntheticLanguage& language_;
  std::span<const TokenId> document_;
  double text_share_ = 1;
  std::vector<index_t> key_at_;        // of the record that token t belongs to, or -1
  std::vector<double> opening_;        // P(no record is under way before token t)
  std::vector<index_t> last_mention_;  // of each key
  Record record_ = {};                 // the last that began
};

}  // namespace detail

/// -log P(token t | t, the `window` tokens before it) in nats for each token of a document, under
/// the law of its language: no predictor that sees no more has a lower loss on average. It knows
/// the law, where in the document it is, and of what is out of sight nothing.
///
/// Little is uncertain, since every id has one role: a window that begins within a value shows
/// neither its key nor, until it ends, how much of it came before. The former is summed over keys,
/// the latter over the places where the record may have begun. All else that is out of sight is
/// independent of what follows.
///
/// **Cost:** O(families) per token; O(keys + value_length) for a symbol of a value that is new to a
/// window which begins within another.
/// **Error:** below 1e-12 (tests/text/test_synthetic.cpp, against all histories enumerated).
/// \param document the first tokens of a document of the language
/// \param window tokens in sight, at least 1, or whole_past
/// \param nll (document.size())
/// \throws Error(usage) for a wrong size, Error(mismatch) for a document of no such language
inline void floor_nll(const SyntheticLanguage& language, std::span<const TokenId> document,
                      index_t window, std::span<double> nll) {
  require(window >= 1 && nll.size() == document.size(),
          "a window of at least one token, and room for the loss of each");
  detail::FloorPass(language, document).run(window, nll);
}
inline std::vector<double> floor_nll(const SyntheticLanguage& language,
                                     std::span<const TokenId> document,
                                     index_t window = whole_past) {
  std::vector<double> nll(document.size());
  floor_nll(language, document, window, nll);
  return nll;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
