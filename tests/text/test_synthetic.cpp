// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/text/synthetic.hpp"
#include "ropewalk/text/synthetic_floor.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

/// All documents of a small language with their probabilities, from the definition in
/// docs/synthetic.md: values first, then token by token. Of the library's code it uses the ids and
/// the order of the text's successors.
class AllDocuments {
 public:
  using Document = std::vector<TokenId>;

  AllDocuments(const SyntheticLanguage& language, int length)
      : language_(language), length_(static_cast<std::size_t>(length)) {
    choose_values(1);
  }
  /// Each document of the full length, values summed out.
  const std::map<Document, double>& probability() const { return documents_; }
  /// P(the last `size` of tokens [0, t] are `tail`), values and all tokens before summed out.
  double tail(std::size_t t, const Document& tail) const {
    const auto at = tails_.find({t, tail});
    return at == tails_.end() ? 0 : at->second;
  }

 private:
  static double power_law(const RecordLaw& law, index_t k) {
    double sum = 0;
    for (index_t i = 0; i < law.keys; ++i)
      sum += std::pow(1.0 + static_cast<double>(i), -law.exponent);
    return std::pow(1.0 + static_cast<double>(k), -law.exponent) / sum;
  }
  /// Every table of values is as probable as any other.
  void choose_values(double probability) {
    const RecordFamily* open = nullptr;
    for (const RecordFamily& f : language_.families()) {
      if (static_cast<index_t>(values_[&f].size()) < f.law.keys * f.law.value_length) open = &f;
    }
    if (open == nullptr) {
      Document document;
      extend(document, language_.start_state(), probability);
      return;
    }
    for (index_t i = 0; i < open->law.value_symbols; ++i) {
      values_[open].push_back(open->first_symbol + static_cast<TokenId>(i));
      choose_values(probability / static_cast<double>(open->law.value_symbols));
      values_[open].pop_back();
    }
  }
  void extend(Document& document, index_t state, double probability) {
    if (document.size() == length_) {
      documents_[document] += probability;
      return;
    }
    double text = 1;
    for (const RecordFamily& f : language_.families()) {
      text -= f.law.rate;
      for (index_t k = 0; k < f.law.keys; ++k) {
        const auto value = values_[&f].begin() + k * f.law.value_length;
        const Document record(value, value + f.law.value_length);
        write(document, f.first_key + static_cast<TokenId>(k), record, language_.start_state(),
              probability * f.law.rate * power_law(f.law, k));
      }
    }
    // The share of each successor among text tokens is the language's.
    double sum = 0;
    std::vector<double> share;
    for (TokenId id = 0; language_.is_text(id); ++id) {
      share.push_back(std::exp(-language_.opening_nll(state, id)));
      sum += share.back();
    }
    for (TokenId id = 0; language_.is_text(id); ++id) {
      write(document, id, {}, id, probability * text * share[static_cast<std::size_t>(id)] / sum);
    }
  }
  /// `id` and then `value`, as far as the document has room; goes on from there.
  void write(Document& document, TokenId id, const Document& value, index_t state,
             double probability) {
    const std::size_t size = document.size();
    push(document, id, probability);
    for (const TokenId symbol : value) {
      if (document.size() < length_) push(document, symbol, probability);
    }
    extend(document, state, probability);
    document.resize(size);
  }
  void push(Document& document, TokenId id, double probability) {
    document.push_back(id);
    const std::size_t t = document.size() - 1;
    for (auto first = document.begin(); first != document.end(); ++first) {
      tails_[{t, Document(first, document.end())}] += probability;
    }
  }

  const SyntheticLanguage& language_;
  std::size_t length_;
  std::map<const RecordFamily*, Document> values_;
  std::map<Document, double> documents_;
  std::map<std::pair<std::size_t, Document>, double> tails_;
};

struct SmallLanguage {
  std::string name;
  SyntheticLaw law;
  int length;
};

/// Vocabularies of at most 4 tokens and 12 tokens of text, and some larger, shorter ones.
const std::vector<SmallLanguage>& small_languages() {
  static const std::vector<SmallLanguage> list = {
      {"text alone", {.text_symbols = 3, .records = {}}, 7},
      {"two facts without text",
       {.text_symbols = 0, .records = {{.rate = 1, .keys = 2, .value_symbols = 2}}},
       12},
      {"one fact of two symbols",
       {.text_symbols = 1,
        .records = {{.rate = 0.4, .keys = 1, .value_length = 2, .value_symbols = 2}}},
       12},
      {"two values of three symbols without text",
       {.text_symbols = 0,
        .records =
            {{.rate = 1, .keys = 2, .exponent = 1.5, .value_length = 3, .value_symbols = 2}}},
       12},
      {"values without choice",
       {.text_symbols = 2, .records = {{.rate = 0.3, .keys = 1, .value_length = 3}}},
       12},
      {"facts and passages of one alphabet symbol",
       {.text_symbols = 0,
        .records = {{.rate = 0.75, .keys = 1, .value_length = 2},
                    {.rate = 0.25, .keys = 1, .value_length = 3}}},
       12},
      {"three facts and text",
       {.text_symbols = 2, .records = {{.rate = 0.5, .keys = 3, .value_symbols = 3}}},
       6},
      {"two facts, two passages, text",
       {.seed = 3,
        .text_symbols = 1,
        .records = {{.rate = 0.3, .keys = 2, .value_symbols = 2},
                    {.rate = 0.5, .keys = 2, .value_length = 2, .value_symbols = 2}}},
       8}};
  return list;
}

}  // namespace

TEST_CASE("text/synthetic_floor: equals the sum over all histories, for every window") {
  for (const SmallLanguage& small : small_languages()) {
    CAPTURE(small.name);
    const SyntheticLanguage language(small.law);
    const AllDocuments all(language, small.length);
    double total = 0, worst = 0;
    for (const auto& [document, probability] : all.probability()) {
      total += probability;
      for (index_t window = 1; window <= small.length; ++window) {
        const std::vector<double> nll =
            floor_nll(language, document, window == small.length ? whole_past : window);
        for (std::size_t t = 0; t < document.size(); ++t) {
          const std::size_t first = t - std::min(t, static_cast<std::size_t>(window));
          const auto begin = document.begin();
          const auto at = [&](std::size_t i) { return begin + static_cast<std::ptrdiff_t>(i); };
          const double joint = all.tail(t, {at(first), at(t + 1)});
          const double past = first == t ? 1 : all.tail(t - 1, {at(first), at(t)});
          worst = std::max(worst, std::fabs(nll[t] - std::log(past / joint)));
        }
      }
    }
    MESSAGE(small.name << ": " << all.probability().size() << " documents, worst " << worst);
    CHECK(total == doctest::Approx(1).epsilon(1e-12));
    // At most a few thousand positive terms of either sum, each with some roundings of 1.1e-16.
    CHECK(worst < 1e-12);
  }
}

TEST_CASE("text/synthetic_floor: in the default law what may follow has probability 1 together") {
  const SyntheticLanguage language;
  const std::vector<TokenId> document = language.tokens(4, 0, index_t{2000});
  const std::vector<double> whole = floor_nll(language, document);
  index_t uneven = 0, checked = 0;
  for (const index_t window : {1, 7, 40, 300}) {
    for (std::size_t t = 1; t < document.size(); ++t) {
      // After text any text and key may follow; in a value that is new to the whole document, any
      // symbol. Elsewhere the document itself allows less than the window.
      const bool after_text = language.is_text(document[t - 1]);
      const RecordFamily* family = nullptr;
      for (const RecordFamily& f : language.families()) {
        if (f.has_symbol(document[t]) && whole[t] > 0) family = &f;
      }
      if (!after_text && family == nullptr) continue;
      if (after_text && t % 50 != 0) continue;
      const std::vector<TokenId> prefix(document.begin(),
                                        document.begin() + static_cast<std::ptrdiff_t>(t));
      double sum = 0, smallest = 1, largest = 0;
      for (TokenId id = 0; id < language.vocab_size(); ++id) {
        if (after_text ? !language.is_text(id) && !language.family_of_key(id)
                       : !family->has_symbol(id)) {
          continue;
        }
        std::vector<TokenId> changed = prefix;
        changed.push_back(id);
        const double p = std::exp(-floor_nll(language, changed, window).back());
        sum += p;
        smallest = std::min(smallest, p);
        largest = std::max(largest, p);
      }
      ++checked;
      uneven += family != nullptr && largest > 1.01 * smallest;
      // A window within one passage leaves open that it has ended.
      if (window > 16 || after_text) CHECK(sum == doctest::Approx(1).epsilon(1e-12));
      CHECK(sum < 1 + 1e-12);
    }
  }
  MESSAGE(checked << " places, " << uneven << " where a value's symbols are not equally probable");
  CHECK(uneven > 20);
}

TEST_CASE("text/synthetic_floor: less in sight, more to lose; all the past is the window of all") {
  const SyntheticLanguage language;
  const std::vector<TokenId> document = language.tokens(8, 1, index_t{20000});
  const std::vector<double> whole = floor_nll(language, document);
  CHECK(whole == floor_nll(language, document, 20000));
  CHECK(whole == floor_nll(language, document, 19999));
  const auto mean_from_4096 = [](const std::vector<double>& nll) {
    double sum = 0;
    for (std::size_t t = 4096; t < nll.size(); ++t) sum += nll[t];
    return sum / static_cast<double>(nll.size() - 4096);
  };
  double last = mean_from_4096(whole);
  for (const index_t window : {1024, 256, 64, 16}) {
    const std::vector<double> nll = floor_nll(language, document, window);
    const auto in_sight = static_cast<std::ptrdiff_t>(window) + 1;
    CHECK(std::equal(nll.begin(), nll.begin() + in_sight, whole.begin()));
    const double mean = mean_from_4096(nll);
    // docs/synthetic.md: more than 0.2 nats for each step of 4.
    CHECK(mean > last + 0.15);
    last = mean;
  }
}

TEST_CASE("text/synthetic_floor: a document of no such language is refused") {
  const SyntheticLanguage language;
  const RecordFamily& facts = language.families()[0];
  const auto outcome = [&](const std::vector<TokenId>& document) {
    return outcome_of([&] { floor_nll(language, document); });
  };
  const TokenId key = facts.first_key, value = facts.first_symbol;
  CHECK(outcome({}) == "accepted");
  CHECK(outcome({0, 1, key, value, 2, key, value}) == "accepted");
  CHECK(outcome({0, 1, key, value, 2, key, value + 1}) == "mismatch");
  CHECK(outcome({key, 0}) == "mismatch");
  CHECK(outcome({value}) == "mismatch");
  CHECK(outcome({0, value}) == "mismatch");
  CHECK(outcome({256}) == "mismatch");
  CHECK(outcome({-1}) == "mismatch");
  const std::vector<TokenId> document = {0, 1};
  std::vector<double> nll(1);
  CHECK(outcome_of([&] { floor_nll(language, document, whole_past, nll); }) == "usage");
  CHECK(outcome_of([&] { floor_nll(language, document, 0); }) == "usage");
}

TEST_CASE("text/synthetic: a document has the same bits everywhere and begins with shorter ones") {
  const SyntheticLanguage language;
  const std::vector<TokenId> document = language.tokens(1, 2, index_t{10000});
  for (index_t length = 0; length < 300; ++length) {
    const std::vector<TokenId> part = language.tokens(1, 2, length);
    REQUIRE(std::equal(part.begin(), part.end(), document.begin()));
  }
  CHECK(document != language.tokens(1, 3, index_t{10000}));
  CHECK(document != language.tokens(2, 2, index_t{10000}));
  const SyntheticLanguage other({.seed = 1});
  CHECK(document != other.tokens(1, 2, index_t{10000}));

  Hasher tokens, nll;
  for (const TokenId id : document) tokens.value(id);
  for (const index_t window : {index_t{3}, index_t{100}, whole_past}) {
    for (const double x : floor_nll(language, document, window)) nll.value(x);
  }
  CHECK(hash_text(tokens.digest()) == "139a761d56a9aedf");
  CHECK(hash_text(nll.digest()) == "16aae4217d528ce4");
}

TEST_CASE("text/synthetic: tokens come as often as the law says") {
  const SyntheticLanguage language;
  const auto states = static_cast<std::size_t>(language.law().text_symbols) + 1;
  const std::size_t openings = 32 + 64 + 32;
  std::vector<std::vector<double>> count(states, std::vector<double>(openings));
  std::vector<double> symbols(256);
  for (std::uint32_t d = 0; d < 40; ++d) {
    const std::vector<TokenId> document = language.tokens(3, d, index_t{5000});
    std::size_t state = states - 1;
    for (std::size_t t = 0; t < document.size(); ++t) {
      const TokenId id = document[t];
      REQUIRE(static_cast<std::size_t>(id) < openings);
      ++count[state][static_cast<std::size_t>(id)];
      state = language.is_text(id) ? static_cast<std::size_t>(id) : states - 1;
      if (const RecordFamily* const f = language.family_of_key(id)) {
        for (index_t i = 0; i < f->law.value_length && t + 1 < document.size(); ++i) {
          const TokenId symbol = document[++t];
          REQUIRE(f->has_symbol(symbol));
          ++symbols[static_cast<std::size_t>(symbol)];
        }
      }
    }
  }
  // z is nearly normal where 20 are expected: of about 3000 the largest is below 5.5 but for one
  // time in 10 000, and their squares have mean 1 within 4 sqrt(2 / 3000).
  double squares = 0, worst = 0, cells = 0;
  for (std::size_t state = 0; state < states; ++state) {
    double n = 0;
    for (const double c : count[state]) n += c;
    for (std::size_t id = 0; id < openings; ++id) {
      const double p =
          std::exp(-language.opening_nll(static_cast<index_t>(state), static_cast<TokenId>(id)));
      if (n * p < 20) continue;
      const double z = (count[state][id] - n * p) / std::sqrt(n * p * (1 - p));
      worst = std::max(worst, std::fabs(z));
      squares += z * z;
      ++cells;
    }
  }
  MESSAGE(cells << " cells, worst " << worst << ", mean square " << squares / cells);
  CHECK(worst < 5.5);
  CHECK(std::fabs(squares / cells - 1) < 4 * std::sqrt(2 / cells));
  CHECK(*std::min_element(symbols.begin() + 128, symbols.end()) > 0);
}

TEST_CASE("text/synthetic: values are drawn anew for each key and document, uniformly") {
  const SyntheticLanguage language;
  for (const RecordFamily& f : language.families()) {
    std::vector<double> count(static_cast<std::size_t>(f.law.value_symbols));
    double same = 0, total = 0;
    for (std::uint32_t d = 0; d < 50; ++d) {
      for (index_t k = 0; k < f.law.keys; ++k) {
        for (index_t i = 0; i < f.law.value_length; ++i) {
          const TokenId key = f.first_key + static_cast<TokenId>(k);
          const TokenId symbol = language.value_symbol(9, d, f, key, i);
          REQUIRE(f.has_symbol(symbol));
          ++count[static_cast<std::size_t>(symbol - f.first_symbol)];
          same += symbol == language.value_symbol(9, d + 1, f, key, i);
          ++total;
        }
      }
    }
    // 5 standard errors of a share of one in value_symbols.
    const double p = 1 / static_cast<double>(f.law.value_symbols);
    const double bound = 5 * std::sqrt(total * p * (1 - p));
    for (const double c : count) CHECK(std::fabs(c - total * p) < bound);
    CHECK(std::fabs(same - total * p) < bound);
  }
}

TEST_CASE("text/synthetic: a law that is none is refused") {
  const auto outcome = [](const SyntheticLaw& law) {
    return outcome_of([&] { SyntheticLanguage{law}; });
  };
  CHECK(outcome({}) == "accepted");
  CHECK(outcome({.text_symbols = 0}) == "config");
  CHECK(outcome({.text_symbols = 0, .records = {{.rate = 1}}}) == "accepted");
  CHECK(outcome({.records = {{.rate = 1}}}) == "config");
  CHECK(outcome({.records = {{.rate = 0.6}, {.rate = 0.6}}}) == "config");
  CHECK(outcome({.records = {{.rate = -0.1}}}) == "config");
  CHECK(outcome({.records = {{.rate = std::nan("")}}}) == "config");
  CHECK(outcome({.records = {{.rate = 0.1, .keys = 0}}}) == "config");
  CHECK(outcome({.records = {{.rate = 0.1, .value_length = 0}}}) == "config");
  CHECK(outcome({.records = {{.rate = 0.1, .value_symbols = 0}}}) == "config");
  CHECK(outcome({.records = {{.rate = 0.1, .exponent = std::nan("")}}}) == "config");
  CHECK(outcome({.text_exponent = -1}) == "config");
  CHECK(outcome({.records = {{.rate = 0.1, .value_length = 200, .value_symbols = 32}}}) ==
        "config");
}
