// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Retrieval tasks in token ids: passkey, key-value pairs, multi-query recall, copies.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ropewalk/core/answer_span.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/text/synthetic.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Tokens that ask, and what they ask for. The right answers stand in the stream, so that one pass
/// over it scores all of them (eval/answers.hpp).
struct RetrievalStream {
  std::vector<TokenId> tokens = {};
  std::vector<AnswerSpan> answers = {};  ///< ascending, disjoint
  std::vector<TokenId> wrong = {};       ///< a wrong answer of equal length for each, in order
};

/// The stream up to the end of an answer, with the wrong answer in its place.
/// \throws Error(usage) for an answer that is not there
inline std::vector<TokenId> wrong_variant(const RetrievalStream& stream, std::size_t answer) {
  require(answer < stream.answers.size(), "an answer of the stream");
  std::size_t before = 0;
  for (std::size_t i = 0; i < answer; ++i) {
    before += static_cast<std::size_t>(stream.answers[i].count);
  }
  const AnswerSpan span = stream.answers[answer];
  std::vector<TokenId> tokens(stream.tokens.begin(), stream.tokens.begin() + span.first);
  const auto wrong = stream.wrong.begin() + static_cast<std::ptrdiff_t>(before);
  tokens.insert(tokens.end(), wrong, wrong + span.count);
  return tokens;
}

/// One of the streams that a seed gives, and its size.
struct RetrievalOptions {
  index_t length = 256;  ///< tokens; text forms (retrieval_text.hpp): at most that many
  double depth = 0;      ///< where the fact stands: 0 first, 1 as late as it can
  std::uint64_t seed = 0;
  std::uint32_t instance = 0;
};

/// Ids that pairs of key and value are made of. A value is `value_length` ids of `values`.
struct PairIds {
  Interval keys = {};
  Interval values = {};
  index_t value_length = 1;

  index_t pair_length() const { return 1 + value_length; }
};

/// The pairs that the records of a family of the synthetic language are: a model that has learnt
/// the language knows these tasks.
inline PairIds pair_ids(const RecordFamily& family) {
  return {.keys = {family.first_key, family.first_key + family.law.keys},
          .values = {family.first_symbol, family.first_symbol + family.law.value_symbols},
          .value_length = family.law.value_length};
}

/// Text of the language without records, to stand between pairs.
inline std::vector<TokenId> filler_text(const SyntheticLanguage& language,
                                        const RetrievalOptions& options) {
  SyntheticLaw law = language.law();
  for (RecordLaw& r : law.records) r.rate = 0;
  return SyntheticLanguage(std::move(law)).tokens(options.seed, options.instance, options.length);
}

/// Random choices of one stream of a task, each a function of (options, purpose, place).
struct TaskRandom {
  static constexpr std::uint32_t stream = 0x72657472;
  enum Purpose : std::uint64_t { key_order, value, wrong, gap, text };

  Random random;

  explicit TaskRandom(const RetrievalOptions& o)
      : random{.seed = o.seed, .stream = stream, .step = o.instance} {}
  double uniform(Purpose purpose, index_t i) const {
    return random.uniform(std::uint64_t{purpose} << 56 | static_cast<std::uint64_t>(i));
  }
  /// Uniform in [0, n).
  index_t below(index_t n, Purpose purpose, index_t i) const {
    return static_cast<index_t>(uniform(purpose, i) * static_cast<double>(n));
  }
  /// `count` different members of `range`, in random order.
  std::vector<TokenId> choose(index_t count, Interval range) const {
    std::vector<TokenId> ids(static_cast<std::size_t>(range.size()));
    std::iota(ids.begin(), ids.end(), static_cast<TokenId>(range.begin));
    for (index_t i = 0; i < count; ++i) {
      std::swap(ids[static_cast<std::size_t>(i)],
                ids[static_cast<std::size_t>(i + below(range.size() - i, key_order, i))]);
    }
    ids.resize(static_cast<std::size_t>(count));
    return ids;
  }
};

namespace detail {

/// Writes pairs into a stream, and what is asked of them.
class PairWriter {
 public:
  PairWriter(const PairIds& ids, const RetrievalOptions& options) : ids_(ids), random_(options) {
    require(ids.keys.size() >= 1 && ids.values.size() >= 2 && ids.value_length >= 1,
            "keys, at least two values, value_length >= 1");
  }
  const TaskRandom& random() const { return random_; }

  /// Value of pair `i`, symbol j.
  TokenId value(index_t i, index_t j) const {
    const index_t place = i * ids_.value_length + j;
    return static_cast<TokenId>(ids_.values.begin +
                                random_.below(ids_.values.size(), TaskRandom::value, place));
  }
  /// Another symbol than `id`, all others equally probable.
  TokenId other_value(TokenId id, index_t place) const {
    const index_t n = ids_.values.size();
    const index_t shift = 1 + random_.below(n - 1, TaskRandom::wrong, place);
    return static_cast<TokenId>(ids_.values.begin + (id - ids_.values.begin + shift) % n);
  }
  void state(RetrievalStream& s, index_t at, TokenId key, index_t i) const {
    s.tokens[static_cast<std::size_t>(at)] = key;
    for (index_t j = 0; j < ids_.value_length; ++j) {
      s.tokens[static_cast<std::size_t>(at + 1 + j)] = value(i, j);
    }
  }
  /// States the pair once more, as a question. Questions come in ascending order.
  void ask(RetrievalStream& s, index_t at, index_t stated_at, TokenId key, index_t i) const {
    state(s, at, key, i);
    add_answer(s, {.first = at + 1, .count = ids_.value_length, .fact = stated_at + 1});
  }
  void add_answer(RetrievalStream& s, AnswerSpan span) const {
    s.answers.push_back(span);
    for (index_t t = span.first; t < span.first + span.count; ++t) {
      s.wrong.push_back(other_value(s.tokens[static_cast<std::size_t>(t)], t));
    }
  }

 private:
  PairIds ids_;
  TaskRandom random_;
};

inline RetrievalStream start_stream(std::span<const TokenId> filler, index_t length) {
  require(static_cast<index_t>(filler.size()) >= length, "as much filler as the stream is long");
  return {.tokens = {filler.begin(), filler.begin() + length}};
}
/// `depth` of [0, last], rounded down.
inline index_t at_depth(double depth, index_t last) {
  require(depth >= 0 && depth <= 1, "a depth of 0 to 1");
  return static_cast<index_t>(depth * static_cast<double>(last));
}

}  // namespace detail

/// One pair within filler, and its key once more at the end: the passkey task in ids (Mohtashami
/// and Jaggi, arXiv:2305.16300). With a long value it asks for a copy.
/// \param filler (>= length) \throws Error(usage) for a length below two pairs
inline RetrievalStream passkey_ids(const PairIds& ids, std::span<const TokenId> filler,
                                   const RetrievalOptions& options) {
  const detail::PairWriter writer(ids, options);
  const index_t pair = ids.pair_length();
  require(options.length >= 2 * pair, "room for the pair and the question");
  RetrievalStream s = detail::start_stream(filler, options.length);
  const TokenId key = writer.random().choose(1, ids.keys).front();
  const index_t stated_at = detail::at_depth(options.depth, options.length - 2 * pair);
  writer.state(s, stated_at, key, 0);
  writer.ask(s, options.length - pair, stated_at, key, 0);
  return s;
}

/// As many pairs as there is room and there are keys for, then one of the keys: JSON key-value
/// recall and line retrieval in ids. What is left of the length is filler before the pairs.
/// \param filler (>= length) \throws Error(usage) for a length below two pairs
inline RetrievalStream key_value_ids(const PairIds& ids, std::span<const TokenId> filler,
                                     const RetrievalOptions& options) {
  const detail::PairWriter writer(ids, options);
  const index_t pair = ids.pair_length();
  const index_t pairs = std::min(options.length / pair - 1, ids.keys.size());
  require(pairs >= 1, "room for a pair and the question");
  RetrievalStream s = detail::start_stream(filler, options.length);
  const std::vector<TokenId> keys = writer.random().choose(pairs, ids.keys);
  const index_t first = options.length - (pairs + 1) * pair;
  for (index_t i = 0; i < pairs; ++i) {
    writer.state(s, first + i * pair, keys[static_cast<std::size_t>(i)], i);
  }
  const index_t asked = detail::at_depth(options.depth, pairs - 1);
  writer.ask(s, options.length - pair, first + asked * pair, keys[static_cast<std::size_t>(asked)],
             asked);
  return s;
}

/// Multi-query associative recall (MQAR; Arora et al., arXiv:2312.04927, appendix): `pairs` pairs,
/// then each key once more, at slots drawn without replacement with P(slot j) ~ j^(exponent - 1),
/// counted from 1 in units of a pair; filler between. Unlike the published task the value follows
/// its key in the stream, as a language model needs it. `depth` is not used.
/// \param filler (>= length) \throws Error(usage) for too few keys or too short a length
inline RetrievalStream mqar_ids(const PairIds& ids, std::span<const TokenId> filler,
                                const RetrievalOptions& options, index_t pairs,
                                double exponent = 0.01) {
  const detail::PairWriter writer(ids, options);
  const index_t pair = ids.pair_length();
  const index_t slots = options.length / pair - pairs;
  require(pairs >= 1 && pairs <= ids.keys.size() && slots >= pairs,
          "a key for each pair, and room for each pair twice");
  RetrievalStream s = detail::start_stream(filler, options.length);
  const std::vector<TokenId> keys = writer.random().choose(pairs, ids.keys);
  for (index_t i = 0; i < pairs; ++i) {
    writer.state(s, i * pair, keys[static_cast<std::size_t>(i)], i);
  }
  // The first arrivals of a race with these rates are a draw without replacement.
  std::vector<std::pair<double, index_t>> race;  // arrival, slot
  for (index_t j = 0; j < slots; ++j) {
    const double wait = -elementary::log(1 - writer.random().uniform(TaskRandom::gap, j));
    const double rate = elementary::pow(static_cast<double>(j + 1), exponent - 1);
    race.emplace_back(wait / rate, j);
  }
  std::partial_sort(race.begin(), race.begin() + pairs, race.end());
  std::vector<std::pair<index_t, index_t>> questions;  // slot, pair
  for (index_t i = 0; i < pairs; ++i) {
    questions.emplace_back(race[static_cast<std::size_t>(i)].second, i);
  }
  std::sort(questions.begin(), questions.end());
  for (const auto& [slot, i] : questions) {
    writer.ask(s, (pairs + slot) * pair, i * pair, keys[static_cast<std::size_t>(i)], i);
  }
  return s;
}

/// Random ids of `values`, a separator (the first of `keys`), and the same ids once more; answers
/// are pieces of value_length. `depth` is not used.
/// \throws Error(usage) for a length that holds no piece twice
inline RetrievalStream copy_ids(const PairIds& ids, const RetrievalOptions& options) {
  const detail::PairWriter writer(ids, options);
  const index_t pieces = (options.length - 1) / 2 / ids.value_length;
  require(pieces >= 1, "room for a piece, the separator and the piece once more");
  const index_t half = pieces * ids.value_length;
  RetrievalStream s;
  for (index_t i = 0; i < half; ++i) s.tokens.push_back(writer.value(0, i));
  s.tokens.push_back(static_cast<TokenId>(ids.keys.begin));
  s.tokens.insert(s.tokens.end(), s.tokens.begin(), s.tokens.begin() + half);
  for (index_t at = 0; at < half; at += ids.value_length) {
    writer.add_answer(s, {.first = half + 1 + at, .count = ids.value_length, .fact = at});
  }
  return s;
}

/// Values in a document of the synthetic language that repeat the latest mention of their key:
/// every document of the language is a retrieval task.
/// \throws Error(mismatch) for what is no document of the language
inline std::vector<AnswerSpan> record_answers(const SyntheticLanguage& language,
                                              std::span<const TokenId> document) {
  std::vector<AnswerSpan> answers;
  std::vector<index_t> last_mention(static_cast<std::size_t>(language.vocab_size()), -1);
  const auto n = static_cast<index_t>(document.size());
  for (index_t t = 0; t < n; ++t) {
    const TokenId id = document[static_cast<std::size_t>(t)];
    if (language.is_text(id)) continue;
    const RecordFamily* const f = language.family_of_key(id);
    if (f == nullptr) {
      fail({.kind = ErrorClass::mismatch,
            .where = "token " + std::to_string(t),
            .found = std::to_string(id),
            .expected = "a document of this language"});
    }
    index_t& last = last_mention[static_cast<std::size_t>(id)];
    const index_t length = f->law.value_length;
    if (last >= 0 && t + length < n) {
      answers.push_back({.first = t + 1, .count = length, .fact = last + 1});
    }
    last = t;
    t += length;
  }
  return answers;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
