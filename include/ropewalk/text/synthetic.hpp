// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A language whose probabilities are known: Markov text with records that recur at all distances.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "ropewalk/core/elementary.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/rng.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A family of records. A record is a key token and the value_length symbols of its value. Within a
/// document a key has one value, drawn anew for each document, each symbol uniform and independent.
/// So its first mention states something new, and every later one repeats it word by word.
struct RecordLaw {
  double rate = 0;      ///< probability that a record of this family begins where one may
  index_t keys = 1;     ///< key k is chosen with probability ~ (k + 1)^-exponent
  double exponent = 1;  ///< 1: log-uniform distances between mentions; above: more of them short
  index_t value_length = 1;   ///< tokens
  index_t value_symbols = 1;  ///< size of the alphabet
};

/// The law of the language (docs/synthetic.md). Default: 256 tokens; facts of one token, of which
/// half recur within 32 tokens and one in 16 after 1000; passages of eight, half of which recur
/// within 1000 and one in twelve after 8000.
struct SyntheticLaw {
  std::uint64_t seed = 0;      ///< of the text's transitions: another seed is another language
  index_t text_symbols = 32;   ///< states of the Markov chain
  double text_exponent = 1.5;  ///< of each state's successors, in an order of its own
  std::vector<RecordLaw> records = {
      {.rate = 0.4, .keys = 64, .exponent = 1.25, .value_length = 1, .value_symbols = 32},
      {.rate = 0.02, .keys = 32, .exponent = 1, .value_length = 8, .value_symbols = 96}};
};

/// probability[k] ~ (k + 1)^-exponent for k < count: Zipf's law.
inline std::vector<double> zipf(index_t count, double exponent) {
  std::vector<double> p(static_cast<std::size_t>(count));
  double sum = 0;
  for (std::size_t k = 0; k < p.size(); ++k) {
    p[k] = elementary::pow(static_cast<double>(k + 1), -exponent);
    sum += p[k];
  }
  for (double& x : p) x /= sum;
  return p;
}

/// One family of records, with its ids and probabilities.
struct RecordFamily {
  RecordLaw law = {};
  TokenId first_key = 0;                ///< ids [first_key, first_key + keys)
  TokenId first_symbol = 0;             ///< ids [first_symbol, first_symbol + value_symbols)
  std::vector<double> key_probability;  ///< (keys), given that a record of the family begins
  std::uint64_t first_element = 0;      ///< of the random numbers for its values

  bool has_key(TokenId id) const { return id >= first_key && id - first_key < law.keys; }
  bool has_symbol(TokenId id) const {
    return id >= first_symbol && id - first_symbol < law.value_symbols;
  }
};

/// Documents of any length. Token t is a function of (law, seed, document, t): a longer document
/// begins with the shorter one, and bits are the same on every machine.
///
/// A document is a row of text tokens and records. Where a record is not under way, the next token
/// is a text token or a key, with a probability that depends only on the token before if that is
/// text (its *state*), and on nothing after a record and at the start. Ids: text, the keys of each
/// family, the value symbols of each family; no id has two roles.
class SyntheticLanguage {
 public:
  /// \throws Error(config) for a law that is none
  explicit SyntheticLanguage(SyntheticLaw law = {}) : law_(std::move(law)) {
    check();
    std::uint64_t first_element = 0;
    index_t id = law_.text_symbols;
    for (const RecordLaw& r : law_.records) {
      families_.push_back({.law = r,
                           .first_key = static_cast<TokenId>(id),
                           .key_probability = zipf(r.keys, r.exponent),
                           .first_element = first_element});
      id += r.keys;
      first_element += static_cast<std::uint64_t>(r.keys * r.value_length);
    }
    num_openings_ = id;
    for (RecordFamily& f : families_) {
      f.first_symbol = static_cast<TokenId>(id);
      id += f.law.value_symbols;
    }
    vocab_size_ = id;
    make_rows();
  }

  const SyntheticLaw& law() const { return law_; }
  index_t vocab_size() const { return vocab_size_; }
  const std::vector<RecordFamily>& families() const { return families_; }
  bool is_text(TokenId id) const { return id >= 0 && id < law_.text_symbols; }
  /// The family that `id` is a key of, or null.
  const RecordFamily* family_of_key(TokenId id) const {
    for (const RecordFamily& f : families_) {
      if (f.has_key(id)) return &f;
    }
    return nullptr;
  }

  /// State after a record and at the start of a document; after text it is that token.
  index_t start_state() const { return law_.text_symbols; }
  /// -log P(id | state) where no record is under way, nats; infinite for a value's symbol.
  double opening_nll(index_t state, TokenId id) const {
    if (id < 0 || id >= num_openings_) return std::numeric_limits<double>::infinity();
    return nll_[row(state) + static_cast<std::size_t>(id)];
  }

  /// The first out.size() tokens of a document.
  void tokens(std::uint64_t seed, std::uint32_t document, std::span<TokenId> out) const {
    const Random choice{.seed = seed, .stream = choice_stream, .step = document};
    index_t state = start_state();
    for (std::size_t t = 0; t < out.size(); ++t) {
      const TokenId id = opening(state, choice.uniform(t));
      out[t] = id;
      state = is_text(id) ? id : start_state();
      if (is_text(id)) continue;
      const RecordFamily& f = *family_of_key(id);
      for (index_t i = 0; i < f.law.value_length && t + 1 < out.size(); ++i) {
        out[++t] = value_symbol(seed, document, f, id, i);
      }
    }
  }
  std::vector<TokenId> tokens(std::uint64_t seed, std::uint32_t document, index_t length) const {
    require(length >= 0, "a length that is not negative");
    std::vector<TokenId> out(static_cast<std::size_t>(length));
    tokens(seed, document, out);
    return out;
  }

  /// Symbol i of the value that `key` has in a document.
  TokenId value_symbol(std::uint64_t seed, std::uint32_t document, const RecordFamily& family,
                       TokenId key, index_t i) const {
    const Random value{.seed = seed, .stream = value_stream, .step = document};
    const index_t place = (key - family.first_key) * family.law.value_length + i;
    const double u = value.uniform(family.first_element + static_cast<std::uint64_t>(place));
    return family.first_symbol +
           static_cast<TokenId>(u * static_cast<double>(family.law.value_symbols));
  }
  /// A text token or a key, chosen by u in [0, 1).
  TokenId opening(index_t state, double u) const {
    const auto first = cumulative_.begin() + static_cast<std::ptrdiff_t>(row(state));
    return static_cast<TokenId>(std::upper_bound(first, first + num_openings_, u) - first);
  }

 private:
  static constexpr std::uint32_t choice_stream = 0x73796e63;  // of tokens that open something
  static constexpr std::uint32_t value_stream = 0x73796e76;   // of values
  static constexpr std::uint32_t text_stream = 0x73796e74;    // of the text's transitions

  std::size_t row(index_t state) const { return static_cast<std::size_t>(state * num_openings_); }

  void check() const {
    constexpr index_t most = index_t{1} << 24;
    const auto rule = [](bool holds, const char* field, const char* expected) {
      if (!holds) fail({.kind = ErrorClass::config, .field = field, .expected = expected});
    };
    const auto is_count = [](index_t n) { return n >= 1 && n <= most; };
    const auto is_exponent = [](double x) { return x >= 0 && x <= 16; };
    rule(law_.text_symbols >= 0 && law_.text_symbols <= 4096, "text_symbols", "0 to 4096");
    rule(is_exponent(law_.text_exponent), "text_exponent", "0 to 16");
    for (const RecordLaw& r : law_.records) {
      rule(r.rate >= 0 && r.rate <= 1, "rate", "a probability");
      rule(is_count(r.keys) && is_count(r.value_symbols) && is_count(r.value_length),
           "keys, value_symbols, value_length", "1 to 2^24");
      rule(is_exponent(r.exponent), "exponent", "0 to 16");
      // So that the probability of a whole value is a normal double.
      rule(static_cast<double>(r.value_length) *
                   elementary::log(static_cast<double>(r.value_symbols)) <
               690,
           "value_length", "value_symbols^value_length below 1e299");
    }
    rule(text_share() >= 0, "rate", "rates with a sum of at most 1");
    rule(law_.text_symbols > 0 ? text_share() > 0 : text_share() == 0, "rate",
         "a sum below 1, or of exactly 1 in a language without text");
  }
  /// Probability that what opens is text.
  double text_share() const {
    double share = 1;
    for (const RecordLaw& r : law_.records) share -= r.rate;
    return share;
  }

  /// Row of each state: P(id), as cumulated sums and as -log.
  void make_rows() {
    const std::vector<double> text = zipf(law_.text_symbols, law_.text_exponent);
    const double share = text_share();
    std::vector<double> p(static_cast<std::size_t>(num_openings_));
    for (const RecordFamily& f : families_) {
      for (std::size_t k = 0; k < f.key_probability.size(); ++k) {
        p[static_cast<std::size_t>(f.first_key) + k] = f.law.rate * f.key_probability[k];
      }
    }
    for (index_t state = 0; state <= law_.text_symbols; ++state) {
      const std::vector<std::size_t> successors = shuffled(text.size(), state);
      for (std::size_t i = 0; i < text.size(); ++i) p[successors[i]] = share * text[i];
      double sum = 0;
      for (const double x : p) {
        sum += elementary::detail::product(x, 1);  // not contracted with the product before
        cumulative_.push_back(sum);
        nll_.push_back(-elementary::log(x));
      }
      // What rounding leaves below 1 goes to the last id that can be chosen.
      for (std::size_t i = p.size(); i-- > 0;) {
        cumulative_[row(state) + i] = 1;
        if (p[i] > 0) break;
      }
    }
  }
  /// 0 .. count - 1 in an order of the state's own (Fisher and Yates).
  std::vector<std::size_t> shuffled(std::size_t count, index_t state) const {
    const Random random{
        .seed = law_.seed, .stream = text_stream, .step = static_cast<std::uint32_t>(state)};
    std::vector<std::size_t> order(count);
    for (std::size_t i = 0; i < count; ++i) order[i] = i;
    for (std::size_t i = count; i > 1; --i) {
      const double u = random.uniform(i);
      std::swap(order[i - 1], order[static_cast<std::size_t>(u * static_cast<double>(i))]);
    }
    return order;
  }

  SyntheticLaw law_;
  std::vector<RecordFamily> families_;
  index_t num_openings_ = 0;  ///< text tokens and keys: ids [0, num_openings_)
  index_t vocab_size_ = 0;
  std::vector<double> cumulative_;  // (text_symbols + 1, num_openings)
  std::vector<double> nll_;         // (text_symbols + 1, num_openings)
};

}  // namespace ropewalk::inline ROPEWALK_ABI
