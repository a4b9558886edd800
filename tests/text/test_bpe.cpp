// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/rng.hpp"
#include "ropewalk/text/bpe.hpp"

#include "support/error_of.hpp"
#include "support/growth.hpp"

using namespace ropewalk;

namespace {

struct Token {
  TokenId id = 0;
  std::size_t end = 0;
  bool operator==(const Token&) const = default;
};

/// The definition: look for the pair of lowest rank, the leftmost, merge it, look again. Quadratic.
std::vector<Token> naive_tokens(const BpeVocabulary& v, const std::string& text) {
  const auto id_of = [&v](const std::string& piece) {
    const auto at = std::find(v.pieces.begin(), v.pieces.end(), piece);
    return at == v.pieces.end() ? -1 : static_cast<TokenId>(at - v.pieces.begin());
  };
  std::vector<Token> tokens;
  bool after_unknown = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = v.byte_units ? 1 : std::max<std::size_t>(1, utf8_length(text, at));
    const TokenId id = id_of(text.substr(at, n));
    const bool unknown = id < 0 && v.fallback.empty();
    if (id >= 0) {
      tokens.push_back({id, at + n});
    } else if (!unknown) {
      for (std::size_t i = at; i < at + n; ++i) {
        tokens.push_back({v.fallback[static_cast<unsigned char>(text[i])], i + 1});
      }
    } else if (after_unknown && v.fuse_unknown) {
      tokens.back().end = at + n;
    } else {
      tokens.push_back({*v.unknown, at + n});
    }
    after_unknown = unknown;
    at += n;
  }
  for (;;) {
    std::size_t best = tokens.size();
    const BpeMerge* merge = nullptr;
    for (std::size_t k = 0; k + 1 < tokens.size(); ++k) {
      for (const BpeMerge& m : v.merges) {
        if (m.left == tokens[k].id && m.right == tokens[k + 1].id &&
            (merge == nullptr || m.rank < merge->rank)) {
          merge = &m;
          best = k;
        }
      }
    }
    if (merge == nullptr) return tokens;
    tokens[best] = {merge->result, tokens[best + 1].end};
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

std::vector<Token> model_tokens(const BpeModel& model, BpeCache& cache, const std::string& text) {
  std::vector<Token> out;
  model.encode(text, cache, [&](TokenId id, std::size_t end) { out.push_back({id, end}); });
  return out;
}

/// Pieces over `letters` made by random merges, some of which share their ranks.
BpeVocabulary random_vocabulary(const Random& rng, std::uint64_t& draw,
                                const std::vector<std::string>& letters, bool in_order) {
  BpeVocabulary v{.pieces = letters};
  for (int k = 0; k < 40; ++k) {
    const auto left = static_cast<TokenId>(rng.bits(draw++) % v.pieces.size());
    const auto right = static_cast<TokenId>(rng.bits(draw++) % v.pieces.size());
    const std::string piece =
        v.pieces[static_cast<std::size_t>(left)] + v.pieces[static_cast<std::size_t>(right)];
    if (std::find(v.pieces.begin(), v.pieces.end(), piece) != v.pieces.end()) continue;
    if (piece.size() > 14) continue;
    const auto rank = in_order ? v.merges.size() / 2 : rng.bits(draw++) % 20;
    v.merges.push_back(
        {left, right, static_cast<TokenId>(v.pieces.size()), static_cast<std::uint32_t>(rank)});
    v.pieces.push_back(piece);
  }
  return v;
}

}  // namespace

TEST_CASE("text/bpe: words, cuts, memory and the queue give what the definition gives") {
  const Random rng{.seed = 21};
  std::uint64_t draw = 0;
  std::size_t together = 0;  // tokens across the start of a word
  for (int round = 0; round < 160; ++round) {
    INFO("round " << round);
    const bool in_order = (round & 1) != 0;
    const std::string space = (round & 2) != 0 ? " " : "\xe2\x96\x81";
    const int kind = round / 4 % 5;
    const bool bytes = kind == 0;
    BpeVocabulary v = random_vocabulary(
        rng, draw, {"a", "b", "c", bytes ? " " : space, bytes ? "d" : "\xc3\xa9"}, in_order);
    const auto next_id = static_cast<TokenId>(v.pieces.size());
    v.byte_units = bytes;
    if (kind == 1 || kind == 2) v.unknown = next_id;
    v.fuse_unknown = kind == 2;
    for (TokenId i = 0; kind >= 3 && i < 256; ++i) v.fallback.push_back(next_id + i);
    const std::vector<std::string> letters{"a", "b", "c", bytes ? "d" : "\xc3\xa9",
                                           kind == 0 ? "a" : "\xe4\xb8\xad"};
    const BpeModel model(v);
    BpeCache cache(kind == 4 ? 1 : 1 << 12);  // of 16 entries, which overwrite each other
    for (std::uint64_t i = 0; i < 40; ++i) {
      std::string text;
      for (std::uint64_t k = 0; k < i * 4; ++k) {
        const std::uint64_t r = rng.bits(draw++);
        text += r % 4 == 0 ? (bytes ? " " : space) : letters[(r >> 8) % letters.size()];
        if (!bytes && kind != 0 && r >> 60 == 0) text += "\xff\xe2";
      }
      const std::vector<Token> expected = naive_tokens(v, text);
      REQUIRE(model_tokens(model, cache, text) == expected);
      for (const Token& t : expected) {
        const std::string piece = static_cast<std::size_t>(t.id) < v.pieces.size()
                                      ? v.pieces[static_cast<std::size_t>(t.id)]
                                      : "";
        together += piece.find(space, 1) != std::string::npos && !piece.ends_with(space) ? 1u : 0u;
      }
    }
  }
  CHECK(together > 1000);
}

TEST_CASE("text/bpe: a text whose every word changes all tokens before it") {
  // Words x_i with a space; two neighbours merge, the later the rather, so that the last word
  // decides who is whose neighbour up to the first one.
  constexpr TokenId words = 300;
  BpeVocabulary v{.pieces = {" "}};
  std::string text;
  for (TokenId i = 0; i < words; ++i) {
    v.pieces.emplace_back();
    append_utf8(v.pieces.back(), 0x4e00u + static_cast<std::uint32_t>(i));
    text += v.pieces.back() + " ";
  }
  for (TokenId i = 0; i < words; ++i) {
    v.merges.push_back({1 + i, 0, static_cast<TokenId>(v.pieces.size()), 0});
    v.pieces.push_back(v.pieces[static_cast<std::size_t>(1 + i)] + " ");
  }
  for (TokenId i = 0; i + 1 < words; ++i) {
    const TokenId left = 1 + words + i;
    v.merges.push_back({left, left + 1, static_cast<TokenId>(v.pieces.size()),
                        static_cast<std::uint32_t>(words - i)});
    v.pieces.push_back(v.pieces[static_cast<std::size_t>(left)] +
                       v.pieces[static_cast<std::size_t>(left) + 1]);
  }
  const BpeModel model(v);
  BpeCache cache(text.size());
  for (const std::size_t count : {7u, 8u, 51u, 299u, 300u}) {
    const std::string start = text.substr(0, count * 4);
    const std::vector<Token> tokens = model_tokens(model, cache, start);
    CHECK(tokens.size() == (count + 1) / 2);
    REQUIRE(tokens == naive_tokens(v, start));
  }
  // Cuts between the copies are safe, words inside of them are not.
  std::vector<Token> tokens;
  CHECK(growth(25, [&](std::size_t count) {
          std::string copies;
          for (std::size_t i = 0; i < count; ++i) copies += text;
          BpeCache fresh(text.size());  // nothing is known from the last time
          tokens = model_tokens(model, fresh, copies);
        }) < quadratic_growth);
  REQUIRE(tokens.size() == 200 * words / 2);
  bool in_place = true;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    in_place = in_place && tokens[i].end == 8 * (i + 1);
  CHECK(in_place);
}

TEST_CASE("text/bpe: a character without piece, fallback or unknown id is an error") {
  const BpeModel model(BpeVocabulary{.name = "v", .pieces = {"a", " "}});
  BpeCache cache(64);
  const std::string text = "a a a a a a a a a a a a a a a a z";
  const ErrorInfo e = error_of([&] { model_tokens(model, cache, text); });
  CHECK(e.kind == ErrorClass::mismatch);
  CHECK(e.found.find("\"z\"") != std::string::npos);
  CHECK(model_tokens(model, cache, text.substr(0, 32)).size() == 32);  // the memory is in order
}
