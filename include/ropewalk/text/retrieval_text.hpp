// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Retrieval tasks as published, in text: passkey, JSON key-value pairs, lines of a record.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/text/documents.hpp"
#include "ropewalk/text/retrieval.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A task in text. It ends with the answer.
struct RetrievalText {
  std::string text = {};
  std::size_t fact = 0;    ///< byte at which the answer is stated, the last time before `answer`
  std::size_t answer = 0;  ///< byte at which the answer begins
};

/// A task that grows with its amount of filler (bytes, pairs or lines, from `least` on).
struct TextTask {
  std::string_view name = {};
  index_t least = 0;
  /// The i-th answer that could be: the right ones and, of another purpose, wrong ones.
  std::string (*answer)(const TaskRandom&, TaskRandom::Purpose, index_t i) = nullptr;
  RetrievalText (*write)(const TaskRandom&, double depth, index_t amount) = nullptr;
};

namespace detail {

/// 1 to 50000.
inline std::string number_answer(const TaskRandom& random, TaskRandom::Purpose purpose, index_t i) {
  return std::to_string(1 + random.below(50000, purpose, i));
}
/// A random UUID (version 4).
inline std::string uuid_answer(const TaskRandom& random, TaskRandom::Purpose purpose, index_t i) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string out = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
  for (std::size_t c = 0; c < out.size(); ++c) {
    const auto place = static_cast<index_t>(c) + 36 * i;
    if (out[c] == 'x') out[c] = hex[static_cast<std::size_t>(random.below(16, purpose, place))];
    if (out[c] == 'y') out[c] = hex[static_cast<std::size_t>(8 + random.below(4, purpose, place))];
  }
  return out;
}
/// Two coined words, as "nasoke-vitamu".
inline std::string line_name(const TaskRandom& random, index_t i) {
  constexpr std::string_view consonants = "bdfghjklmnprstvz", vowels = "aeio";
  std::string out;
  for (index_t c = 0; c < 12; ++c) {
    const std::string_view letters = c % 2 == 0 ? consonants : vowels;
    const auto n = static_cast<index_t>(letters.size());
    if (c == 6) out += '-';
    out += letters[static_cast<std::size_t>(random.below(n, TaskRandom::text, 12 * i + c))];
  }
  return out;
}

inline RetrievalText write_passkey(const TaskRandom& random, double depth, index_t amount) {
  constexpr std::string_view garbage =
      "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
  const auto add_garbage = [&](std::string& text, index_t bytes) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(bytes); ++i) {
      text += garbage[i % garbage.size()];
    }
  };
  const std::string key = number_answer(random, TaskRandom::value, 0);
  const index_t before = at_depth(depth, amount);
  RetrievalText t{
      .text =
          "There is an important info hidden inside a lot of irrelevant text. Find it and "
          "memorize them. I will quiz you about the important information there.\n"};
  add_garbage(t.text, before);
  t.text += "\nThe pass key is " + key + ". Remember it. ";
  t.fact = t.text.size();
  t.text += key + " is the pass key.\n";
  add_garbage(t.text, amount - before);
  t.text += "\nWhat is the pass key? The pass key is ";
  t.answer = t.text.size();
  t.text += key;
  return t;
}

inline RetrievalText write_json(const TaskRandom& random, double depth, index_t amount) {
  const index_t asked = at_depth(depth, amount - 1);
  RetrievalText t{
      .text =
          "Extract the value corresponding to the specified key in the JSON object below.\n\n"
          "JSON data:\n"};
  for (index_t i = 0; i < amount; ++i) {
    t.text += (i == 0 ? "{\"" : " \"") + uuid_answer(random, TaskRandom::text, i) + "\": \"";
    if (i == asked) t.fact = t.text.size();
    t.text += uuid_answer(random, TaskRandom::value, i);
    t.text += i + 1 < amount ? "\",\n" : "\"}\n";
  }
  t.text +=
      "\nKey: \"" + uuid_answer(random, TaskRandom::text, asked) + "\"\nCorresponding value: \"";
  t.answer = t.text.size();
  t.text += uuid_answer(random, TaskRandom::value, asked);
  return t;
}

inline RetrievalText write_lines(const TaskRandom& random, double depth, index_t amount) {
  const index_t asked = at_depth(depth, amount - 1);
  const std::string name = line_name(random, 0);
  RetrievalText t{
      .text =
          "Below is a record of lines I want you to remember. Each line begins with 'line "
          "<line index>' and contains a '<REGISTER_CONTENT>' at the end of the line as a "
          "numerical value. For each line index, memorize its corresponding "
          "<REGISTER_CONTENT>. At the end of the record, I will ask you to retrieve the "
          "corresponding <REGISTER_CONTENT> of a certain line index. Now the record start:\n\n"};
  for (index_t i = 0; i < amount; ++i) {
    std::string other = line_name(random, i + 1);
    if (other == name) other += "-" + std::to_string(i);
    t.text += "line " + (i == asked ? name : other) + ": REGISTER_CONTENT is <";
    if (i == asked) t.fact = t.text.size();
    t.text += number_answer(random, TaskRandom::value, i) + ">\n";
  }
  t.text += "\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line " + name +
            "? I need the number. The <REGISTER_CONTENT> in line " + name + " is <";
  t.answer = t.text.size();
  t.text += number_answer(random, TaskRandom::value, asked);
  return t;
}

/// The token that holds a byte of the text.
inline index_t token_of_byte(const TokenStream& tokens, std::size_t byte) {
  std::size_t end = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    end += tokens.bytes[t];
    if (end > byte) return static_cast<index_t>(t);
  }
  return static_cast<index_t>(tokens.size());
}

}  // namespace detail

/// Mohtashami and Jaggi, arXiv:2305.16300, run_test.py of landmark-attention. Amount: bytes of
/// filler; depth: the share of it that stands before the key.
inline constexpr TextTask passkey_task = {
    .name = "passkey", .least = 0, .answer = detail::number_answer, .write = detail::write_passkey};
/// Liu et al., arXiv:2307.03172, kv_retrieval.prompt. Amount: pairs.
inline constexpr TextTask json_task = {
    .name = "json_kv", .least = 1, .answer = detail::uuid_answer, .write = detail::write_json};
/// LongEval's lines task (LongChat), with coined words for names, and the beginning of an answer,
/// so that a model without instruction tuning goes on with the number. Amount: lines.
inline constexpr TextTask lines_task = {
    .name = "lines", .least = 1, .answer = detail::number_answer, .write = detail::write_lines};

/// A task's text in tokens, with as much filler as options.length has room for. The answer begins
/// with the token that holds its first byte. A wrong answer is of the same kind and has as many
/// tokens.
/// \throws Error(usage) where not even the least amount fits, Error(unsupported) where the
/// tokenizer gives no wrong answer of equal length
template <Tokenizer T>
RetrievalStream encode_task(const T& tokenizer, const TextTask& task,
                            const RetrievalOptions& options, BosPolicy bos = BosPolicy::automatic) {
  const TaskRandom random(options);
  const auto encode = [&](const std::string& text) {
    EncodedDocuments out;
    encode_documents(tokenizer, {text}, bos, out);
    return std::move(out.tokens);
  };
  const auto tokens_of = [&](index_t amount) {
    return static_cast<index_t>(encode(task.write(random, options.depth, amount).text).size());
  };
  index_t fits = task.least;
  if (const index_t needed = tokens_of(fits); needed > options.length) {
    fail({.kind = ErrorClass::usage,
          .field = "length",
          .found = std::to_string(options.length),
          .expected =
              "at least " + std::to_string(needed) + " tokens for " + std::string(task.name)});
  }
  index_t too_much = fits + 1;
  while (tokens_of(too_much) <= options.length) fits = std::exchange(too_much, 2 * too_much);
  while (too_much - fits > 1) {
    const index_t middle = fits + (too_much - fits) / 2;
    (tokens_of(middle) <= options.length ? fits : too_much) = middle;
  }

  const RetrievalText written = task.write(random, options.depth, fits);
  const TokenStream right = encode(written.text);
  const AnswerSpan span{
      .first = detail::token_of_byte(right, written.answer),
      .count = static_cast<index_t>(right.size()) - detail::token_of_byte(right, written.answer),
      .fact = detail::token_of_byte(right, written.fact)};
  constexpr index_t most_attempts = 1000;
  for (index_t i = 0; i < most_attempts; ++i) {
    const TokenStream wrong =
        encode(written.text.substr(0, written.answer) + task.answer(random, TaskRandom::wrong, i));
    const auto begin = wrong.ids.begin();
    if (wrong.size() == right.size() && wrong.ids != right.ids &&
        std::equal(begin, begin + span.first, right.ids.begin())) {
      return {
          .tokens = right.ids, .answers = {span}, .wrong = {begin + span.first, wrong.ids.end()}};
    }
  }
  fail({.kind = ErrorClass::unsupported,
        .field = std::string(task.name),
        .expected = "a tokenizer under which two answers have equally many tokens"});
}

}  // namespace ropewalk::inline ROPEWALK_ABI
