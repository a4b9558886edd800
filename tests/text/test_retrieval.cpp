// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/text/byte_tokenizer.hpp"
#include "ropewalk/text/retrieval.hpp"
#include "ropewalk/text/retrieval_text.hpp"
#include "ropewalk/text/synthetic_floor.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

/// A space and the byte after it, or two digits, are one token; every document begins with BOS.
class PairTokenizer {
 public:
  static constexpr TokenId bos = 1 << 16;
  index_t vocab_size() const { return bos + 1; }
  std::optional<TokenId> bos_id() const { return bos; }
  void encode(std::string_view text, TokenStream& out) const {
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = [&](std::size_t j) { return static_cast<unsigned char>(text[j]); };
      const bool pair =
          i + 1 < text.size() && (text[i] == ' ' || (digit(text[i]) && digit(text[i + 1])));
      out.push(pair ? byte(i) << 8 | byte(i + 1) : byte(i), pair ? 2 : 1);
      i += pair;
    }
  }
  std::string piece(TokenId id) const {
    if (id == bos) return {};
    std::string out;
    if (id >> 8 != 0) out += static_cast<char>(id >> 8);
    return out + static_cast<char>(id & 255);
  }
  std::string decode(std::span<const TokenId> ids) const {
    std::string out;
    for (const TokenId id : ids) out += piece(id);
    return out;
  }
};
static_assert(Tokenizer<PairTokenizer>);

/// What holds for a stream of pairs whatever the task.
void check_pairs(const PairIds& ids, const RetrievalStream& s) {
  std::size_t total = 0;
  index_t end = 0;
  for (const AnswerSpan& a : s.answers) {
    REQUIRE(a.first >= end);
    REQUIRE(a.fact >= 1);
    REQUIRE(a.distance() >= ids.pair_length());
    end = a.first + a.count;
    REQUIRE(end <= static_cast<index_t>(s.tokens.size()));
    const auto at = [&](index_t t) { return s.tokens[static_cast<std::size_t>(t)]; };
    CHECK(a.count == ids.value_length);
    CHECK(at(a.first - 1) == at(a.fact - 1));
    CHECK(at(a.first - 1) >= ids.keys.begin);
    CHECK(at(a.first - 1) < ids.keys.end);
    for (index_t i = 0; i < a.count; ++i, ++total) {
      const TokenId value = at(a.first + i);
      CHECK(value == at(a.fact + i));
      REQUIRE(total < s.wrong.size());
      for (const TokenId id : {value, s.wrong[total]}) {
        CHECK(id >= ids.values.begin);
        CHECK(id < ids.values.end);
      }
      CHECK(value != s.wrong[total]);
    }
  }
  CHECK(total == s.wrong.size());
}

const PairIds facts{.keys = {10, 20}, .values = {20, 24}};
const PairIds passages{.keys = {30, 34}, .values = {40, 48}, .value_length = 5};
const std::vector<TokenId> filler(4096, 7);

}  // namespace

TEST_CASE("text/retrieval: a passkey is stated at the depth asked for, in filler of any length") {
  for (const PairIds& ids : {facts, passages}) {
    const index_t pair = ids.pair_length();
    for (const index_t length : {2 * pair, 2 * pair + 1, index_t{100}, index_t{4096}}) {
      for (const double depth : {0.0, 0.37, 1.0}) {
        const RetrievalOptions options{.length = length, .depth = depth, .seed = 3};
        const RetrievalStream s = passkey_ids(ids, filler, options);
        REQUIRE(static_cast<index_t>(s.tokens.size()) == length);
        REQUIRE(s.answers.size() == 1);
        check_pairs(ids, s);
        const index_t stated = static_cast<index_t>(depth * static_cast<double>(length - 2 * pair));
        CHECK(s.answers[0] == AnswerSpan{.first = length - ids.value_length,
                                         .count = ids.value_length,
                                         .fact = stated + 1});
        CHECK(std::count(s.tokens.begin(), s.tokens.end(), 7) == length - 2 * pair);
      }
    }
  }
}

TEST_CASE("text/retrieval: key-value pairs have different keys and fill the stream") {
  for (const PairIds& ids : {facts, passages}) {
    for (const index_t length : {index_t{12}, index_t{21}, index_t{400}}) {
      for (const double depth : {0.0, 0.5, 1.0}) {
        const RetrievalStream s =
            key_value_ids(ids, filler, {.length = length, .depth = depth, .instance = 9});
        REQUIRE(static_cast<index_t>(s.tokens.size()) == length);
        check_pairs(ids, s);
        const index_t pairs = std::min(length / ids.pair_length() - 1, ids.keys.size());
        std::set<TokenId> keys;
        index_t num_keys = 0;
        for (const TokenId id : s.tokens) {
          if (id < ids.keys.begin || id >= ids.keys.end) continue;
          keys.insert(id);
          ++num_keys;
        }
        CHECK(num_keys == pairs + 1);
        CHECK(static_cast<index_t>(keys.size()) == pairs);
        const index_t asked = static_cast<index_t>(depth * static_cast<double>(pairs - 1));
        REQUIRE(s.answers.size() == 1);
        CHECK(s.answers[0].distance() == (pairs - asked) * ids.pair_length());
        // Values are drawn for each pair: more than two, of at least 4 each, are not all the same.
        std::set<std::vector<TokenId>> values;
        for (auto key = s.tokens.begin(); key != s.tokens.end(); ++key) {
          if (*key >= ids.keys.begin && *key < ids.keys.end) {
            values.insert({key + 1, key + ids.pair_length()});
          }
        }
        if (pairs > 2) CHECK(values.size() > 1);
      }
    }
  }
}

TEST_CASE("text/retrieval: multi-query recall asks every key once, early more often than late") {
  const PairIds ids{.keys = {64, 128}, .values = {128, 256}};
  const index_t pairs = 8, slots = 56;
  std::vector<double> count(static_cast<std::size_t>(slots));
  const std::uint32_t streams = 2000;
  for (std::uint32_t i = 0; i < streams; ++i) {
    const RetrievalStream s = mqar_ids(ids, filler, {.length = 128, .instance = i}, pairs);
    if (i < 50) check_pairs(ids, s);
    std::set<index_t> facts_asked;
    for (const AnswerSpan& a : s.answers) {
      facts_asked.insert(a.fact);
      ++count[static_cast<std::size_t>((a.first - 1) / 2 - pairs)];
    }
    CHECK(facts_asked.size() == 8);
    CHECK(*facts_asked.begin() == 1);
    CHECK(*facts_asked.rbegin() == 15);
  }
  // With one pair the slot has P(j) ~ j^(a - 1) itself; with 8 the first slots saturate.
  CHECK(count[0] > count[4]);
  CHECK(count[4] > count[30]);
  double first_slot = 0, sum = 0;
  for (std::uint32_t i = 0; i < streams; ++i) {
    const RetrievalStream s = mqar_ids(ids, filler, {.length = 114, .instance = i}, 1);
    first_slot += s.answers[0].first == 3;
  }
  for (int j = 1; j <= slots; ++j) sum += std::pow(j, -0.99);
  // 4 standard errors of a share of 2000.
  const double p = 1 / sum;
  CHECK(std::fabs(first_slot / streams - p) < 4 * std::sqrt(p * (1 - p) / streams));
}

TEST_CASE("text/retrieval: a copy repeats all that was before the separator") {
  for (const PairIds& ids : {facts, passages}) {
    const RetrievalStream s = copy_ids(ids, {.length = 64});
    const index_t half = 31 / ids.value_length * ids.value_length;
    REQUIRE(static_cast<index_t>(s.tokens.size()) == 2 * half + 1);
    CHECK(s.tokens[static_cast<std::size_t>(half)] == ids.keys.begin);
    CHECK(static_cast<index_t>(s.answers.size()) == half / ids.value_length);
    for (index_t t = 0; t < half; ++t) {
      CHECK(s.tokens[static_cast<std::size_t>(t)] ==
            s.tokens[static_cast<std::size_t>(half + 1 + t)]);
    }
    for (const AnswerSpan& a : s.answers) CHECK(a.distance() == half + 1);
  }
}

TEST_CASE("text/retrieval: streams are functions of seed and instance") {
  const auto stream = [](std::uint64_t seed, std::uint32_t instance) {
    return mqar_ids(passages, filler, {.length = 120, .seed = seed, .instance = instance}, 4);
  };
  const RetrievalStream s = stream(1, 2);
  CHECK(s.tokens == stream(1, 2).tokens);
  CHECK(s.wrong == stream(1, 2).wrong);
  CHECK(s.tokens != stream(1, 3).tokens);
  CHECK(s.tokens != stream(2, 2).tokens);
}

TEST_CASE("text/retrieval: the wrong variant ends with the wrong answer") {
  const RetrievalStream s = mqar_ids(passages, filler, {.length = 120}, 3);
  REQUIRE(s.answers.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const AnswerSpan a = s.answers[i];
    const std::vector<TokenId> wrong = wrong_variant(s, i);
    REQUIRE(static_cast<index_t>(wrong.size()) == a.first + a.count);
    CHECK(std::equal(wrong.begin(), wrong.begin() + a.first, s.tokens.begin()));
    for (index_t t = 0; t < a.count; ++t) {
      CHECK(wrong[static_cast<std::size_t>(a.first + t)] ==
            s.wrong[5 * i + static_cast<std::size_t>(t)]);
    }
  }
  CHECK(outcome_of([&] { wrong_variant(s, 3); }) == "usage");
}

TEST_CASE("text/retrieval: tasks in the language's own ids have answers that only context tells") {
  const SyntheticLanguage language;
  const RetrievalOptions options{.length = 700, .depth = 0.25, .seed = 5, .instance = 1};
  const std::vector<TokenId> text = filler_text(language, options);
  CHECK(std::all_of(text.begin(), text.end(), [&](TokenId t) { return language.is_text(t); }));
  for (const RecordFamily& f : language.families()) {
    const PairIds ids = pair_ids(f);
    for (const RetrievalStream& s :
         {passkey_ids(ids, text, options), key_value_ids(ids, text, options),
          mqar_ids(ids, text, options, 12)}) {
      const std::vector<double> whole = floor_nll(language, s.tokens);
      for (const AnswerSpan& a : s.answers) {
        // The key of the fact is one token before it.
        const std::vector<double> seen = floor_nll(language, s.tokens, a.distance() + 1);
        const std::vector<double> blind = floor_nll(language, s.tokens, a.count);
        const auto t = static_cast<std::size_t>(a.first);
        CHECK(whole[t] == 0);
        CHECK(seen[t] == 0);
        CHECK(blind[t] > 1);
      }
    }
  }
}

TEST_CASE("text/retrieval: documents of the language have an answer in each repeated record") {
  const SyntheticLanguage language;
  const std::vector<TokenId> document = language.tokens(1, 0, index_t{3000});
  const std::vector<AnswerSpan> answers = record_answers(language, document);
  const std::vector<double> nll = floor_nll(language, document);
  REQUIRE(answers.size() > 100);
  std::vector<bool> answered(document.size());
  for (const AnswerSpan& a : answers) {
    for (index_t i = 0; i < a.count; ++i) {
      answered[static_cast<std::size_t>(a.first + i)] = true;
      CHECK(document[static_cast<std::size_t>(a.first + i)] ==
            document[static_cast<std::size_t>(a.fact + i)]);
    }
    // The latest mention: its key does not stand between.
    const auto key = document.begin() + a.fact - 1;
    CHECK(std::find(key + 1, document.begin() + a.first - 1, *key) ==
          document.begin() + a.first - 1);
  }
  // Nothing but answers has probability 1 (the last record may be cut by the end).
  for (std::size_t t = 0; t + 16 < document.size(); ++t) CHECK((nll[t] == 0) == answered[t]);
  const std::vector<TokenId> other = {0, 0, 255};
  CHECK(outcome_of([&] { record_answers(language, other); }) == "mismatch");
}

TEST_CASE("text/retrieval_text: the passkey's prompt is the published one") {
  const ByteTokenizer bytes;
  const RetrievalOptions options{.length = 460, .depth = 0.5, .seed = 1};
  const RetrievalStream s = encode_task(bytes, passkey_task, options);
  REQUIRE(s.tokens.size() == 460);  // a byte of filler is a token
  REQUIRE(s.answers.size() == 1);
  const AnswerSpan a = s.answers[0];
  const auto piece = [&](index_t first, index_t count) {
    return bytes.decode(std::span(s.tokens).subspan(static_cast<std::size_t>(first),
                                                    static_cast<std::size_t>(count)));
  };
  const std::string key = piece(a.first, a.count);
  CHECK(key.find_first_not_of("0123456789") == std::string::npos);
  CHECK(piece(a.fact, a.count) == key);
  const std::string garbage =
      "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
      "The grass is green. The sky is blue.";
  const std::string fixed =
      "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
      "them. I will quiz you about the important information there.\n\nThe pass key is " +
      key + ". Remember it. " + key +
      " is the pass key.\n\nWhat is the pass key? The pass key is " + key;
  const std::size_t amount = 460 - fixed.size();
  const std::string expected =
      "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
      "them. I will quiz you about the important information there.\n" +
      garbage.substr(0, amount / 2) + "\nThe pass key is " + key + ". Remember it. " + key +
      " is the pass key.\n" + garbage.substr(0, amount - amount / 2) +
      "\nWhat is the pass key? The pass key is " + key;
  CHECK(piece(0, 460) == expected);
}

TEST_CASE("text/retrieval_text: pairs and lines are written as published") {
  const ByteTokenizer bytes;
  const auto text_of = [&](const TextTask& task, index_t length, double depth) {
    const RetrievalStream s =
        encode_task(bytes, task, {.length = length, .depth = depth, .seed = 2, .instance = 4});
    return bytes.decode(s.tokens);
  };
  // Two UUIDs a pair; each stands for itself below.
  const std::string json = text_of(json_task, 420, 1);
  const auto uuid = [](std::string text, std::size_t at) { return text.substr(at, 36); };
  const std::size_t head = json.find("{\"") + 2;
  const std::string k0 = uuid(json, head), v0 = uuid(json, head + 40), k1 = uuid(json, head + 81),
                    v1 = uuid(json, head + 121);
  CHECK(json ==
        "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON "
        "data:\n{\"" +
            k0 + "\": \"" + v0 + "\",\n \"" + k1 + "\": \"" + v1 + "\"}\n\nKey: \"" + k1 +
            "\"\nCorresponding value: \"" + v1);
  CHECK(k0 != k1);
  CHECK(v0 != v1);
  for (const std::string& id : {k0, v0, k1, v1}) {
    for (const std::size_t dash : {8U, 13U, 18U, 23U}) CHECK(id[dash] == '-');
    CHECK(id[14] == '4');
    CHECK(std::string("89ab").find(id[19]) != std::string::npos);
  }

  const std::string lines = text_of(lines_task, 700, 0);
  const std::size_t first = lines.find("\n\nline ") + 7;
  const std::string name = lines.substr(first, 13);
  const std::size_t number_at = lines.find('<', first) + 1;
  const std::string number = lines.substr(number_at, lines.find('>', number_at) - number_at);
  CHECK(name[6] == '-');
  const std::string end =
      ">\n\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line " + name +
      "? I need the number. The <REGISTER_CONTENT> in line " + name + " is <" + number;
  REQUIRE(lines.size() > end.size());
  CHECK(lines.substr(lines.size() - end.size()) == end);
}

TEST_CASE("text/retrieval_text: spans hold the answer under any tokenizer, at any length") {
  const PairTokenizer pairs;
  const ByteTokenizer bytes;
  const auto check = [](const auto& tokenizer, const TextTask& task, index_t length, double depth) {
    CAPTURE(task.name);
    CAPTURE(length);
    const RetrievalStream s =
        encode_task(tokenizer, task, {.length = length, .depth = depth, .instance = 6});
    REQUIRE(s.answers.size() == 1);
    const AnswerSpan a = s.answers[0];
    CHECK(static_cast<index_t>(s.tokens.size()) <= length);
    // A line or pair less than the length at the most.
    CHECK(static_cast<index_t>(s.tokens.size()) > length - 85);
    CHECK(a.first + a.count == static_cast<index_t>(s.tokens.size()));
    CHECK(static_cast<index_t>(s.wrong.size()) == a.count);
    const auto part = [&](index_t first, index_t count) {
      const std::string text = tokenizer.decode(std::span(s.tokens).subspan(
          static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
      return std::string(strip(text));
    };
    const std::string answer = part(a.first, a.count);
    CHECK(part(a.fact, a.count) == answer);
    const std::string wrong(strip(tokenizer.decode(s.wrong)));
    CHECK(wrong.size() > 0);
    CHECK(wrong != answer);
    const std::vector<TokenId> variant = wrong_variant(s, 0);
    CHECK(std::equal(variant.begin(), variant.begin() + a.first, s.tokens.begin()));
  };
  for (const TextTask& task : {passkey_task, json_task, lines_task}) {
    for (const index_t length : {700, 1500, 5000}) {
      for (const double depth : {0.0, 0.6, 1.0}) {
        check(bytes, task, length, depth);
        check(pairs, task, length, depth);
      }
    }
  }
  // BOS is the stream's first token unless it is unwanted.
  CHECK(encode_task(pairs, passkey_task, {.length = 700}).tokens[0] == PairTokenizer::bos);
  CHECK(encode_task(pairs, passkey_task, {.length = 700}, BosPolicy::no).tokens[0] == 'T');
}

TEST_CASE("text/retrieval_text: a wrong answer differs from the right one, or there is none") {
  const auto write = [](const TaskRandom& random, double, index_t amount) -> RetrievalText {
    const char answer = "ab"[random.below(2, TaskRandom::value, 0)];
    const std::string between(static_cast<std::size_t>(amount), '.');
    return {.text = answer + between + answer, .fact = 0, .answer = between.size() + 1};
  };
  const TextTask either{
      .name = "either",
      .answer = [](const TaskRandom& random, TaskRandom::Purpose purpose,
                   index_t i) { return std::string(1, "ab"[random.below(2, purpose, i)]); },
      .write = write};
  for (std::uint32_t i = 0; i < 20; ++i) {
    const RetrievalStream s = encode_task(ByteTokenizer(), either, {.length = 9, .instance = i});
    REQUIRE(s.tokens.size() == 9);
    CHECK(s.answers[0] == AnswerSpan{.first = 8, .count = 1, .fact = 0});
    CHECK(s.wrong[0] == 'a' + 'b' - s.tokens[8]);
  }
  TextTask longer = either;
  longer.answer = [](const TaskRandom&, TaskRandom::Purpose, index_t) { return std::string("aa"); };
  CHECK(outcome_of([&] { encode_task(ByteTokenizer(), longer, {.length = 9}); }) == "unsupported");
}

TEST_CASE("text/retrieval: what has no room or no choice is refused") {
  const auto outcome = [](auto&& call) { return outcome_of(call); };
  CHECK(outcome([] { passkey_ids(facts, filler, {.length = 3}); }) == "usage");
  CHECK(outcome([] { passkey_ids(facts, filler, {.length = 4}); }) == "accepted");
  CHECK(outcome([] { passkey_ids(facts, filler, {.length = 8, .depth = 1.1}); }) == "usage");
  CHECK(outcome([] { passkey_ids(facts, filler, {.length = 4097}); }) == "usage");
  CHECK(outcome([] { key_value_ids(facts, filler, {.length = 3}); }) == "usage");
  CHECK(outcome([] { mqar_ids(facts, filler, {.length = 400}, 11); }) == "usage");
  CHECK(outcome([] { mqar_ids(facts, filler, {.length = 7}, 2); }) == "usage");
  CHECK(outcome([] { mqar_ids(facts, filler, {.length = 8}, 2); }) == "accepted");
  CHECK(outcome([] { copy_ids(passages, {.length = 10}); }) == "usage");
  CHECK(outcome([] { copy_ids(passages, {.length = 11}); }) == "accepted");
  const PairIds no_pair{.keys = {0, 4}, .values = {4, 8}, .value_length = -1};
  CHECK(outcome([&] { key_value_ids(no_pair, filler, {.length = 8}); }) == "usage");
  CHECK(outcome([&] { mqar_ids(no_pair, filler, {.length = 8}, 1); }) == "usage");
  CHECK(outcome([&] { copy_ids(no_pair, {.length = 8}); }) == "usage");
  const PairIds no_choice{.keys = {0, 4}, .values = {4, 5}};
  CHECK(outcome([&] { passkey_ids(no_choice, filler, {.length = 8}); }) == "usage");
  const ErrorInfo error =
      error_of([] { encode_task(ByteTokenizer(), json_task, {.length = 100}); });
  CHECK(error.field == "length");
  CHECK(error.expected == "at least 275 tokens for json_kv");
}
