// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/eval/windows.hpp"

#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

/// Ids 100, 101, ... so that a window's tokens say where they come from.
struct Numbers {
  std::vector<TokenId> ids;
  std::vector<std::int64_t> cuts = {0};
  std::optional<TokenId> bos;

  explicit Numbers(const std::vector<std::int64_t>& sizes, std::optional<TokenId> prefix = 1)
      : bos(prefix) {
    for (const std::int64_t n : sizes) cuts.push_back(cuts.back() + n);
    for (TokenId i = 0; i < cuts.back(); ++i) ids.push_back(100 + i);
  }
  EvalText text() const { return {.ids = ids, .cu_seqlens = cuts, .prefix_id = bos}; }
};

/// "B 100 101 | 102 103": tokens, the scored ones after the bar.
std::vector<std::string> shown(const WindowPlan& plan, const Numbers& numbers) {
  std::vector<std::string> out;
  for (const ScoredWindow& w : plan.windows) {
    std::string line;
    for (index_t j = 0; j < w.num_tokens(); ++j) {
      if (j == w.first_scored) line += "| ";
      const bool prefix = j == 0 && w.prefix != no_prefix;
      line += prefix ? "B "
                     : std::to_string(numbers.ids[static_cast<std::size_t>(w.id_index(j))]) + " ";
    }
    out.push_back(line);
  }
  return out;
}
using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("eval/windows: what each preset feeds and scores") {
  const Numbers ten({10}), two({5, 2});
  const auto lines = [](const Protocol& p, const Numbers& n) {
    return shown(lower(p, n.text()), n);
  };
  CHECK(lines(protocols::prefix(3), ten) == Lines{"100 | 101 102 103 ", "104 | 105 106 107 "});
  CHECK(lines(protocols::prefix(2, 5), ten) == Lines{"100 | 101 102 ", "105 | 106 107 "});
  CHECK(lines(protocols::prefix(2, 6), ten) == Lines{"100 | 101 102 "});  // 4 left: no run of 6
  CHECK(lines(protocols::press(4), ten) ==
        Lines{"B | 100 101 102 103 ", "103 | 104 105 106 107 ", "107 | 108 109 "});
  CHECK(lines(protocols::press(4, 3), ten) == Lines{"B | 100 101 102 ", "101 102 | 103 104 105 ",
                                                    "104 105 | 106 107 108 ", "107 108 | 109 "});
  CHECK(lines(protocols::hf(4, 3), ten) ==
        Lines{"100 | 101 102 103 ", "103 | 104 105 106 ", "106 | 107 108 109 "});
  CHECK(lines(protocols::hf(5, 2), ten) == Lines{"100 | 101 102 103 104 ", "102 103 104 | 105 106 ",
                                                 "104 105 106 | 107 108 ", "106 107 108 | 109 "});
  CHECK(lines(protocols::yarn(4, 2), two) ==
        Lines{"B | 100 101 102 ", "B 102 | 103 104 ", "B | 105 106 "});
  CHECK(lines(protocols::yarn_truncate(4), two) == Lines{"B | 100 101 102 "});
  CHECK(lines(protocols::longlora(4, 2), ten) == Lines{"100 | 101 102 103 ", "102 | 103 104 105 "});
  CHECK(lines(protocols::llamacpp(5), ten) ==
        Lines{"B 100 101 | 102 103 ", "B 105 106 | 107 108 "});
  CHECK(lines(protocols::llamacpp_stride(4, 2), ten) ==
        Lines{"B 100 101 | 102 103 ", "101 102 103 | 104 105 ", "103 104 105 | 106 107 "});
  CHECK(lines(protocols::lmeval(4), ten) ==
        Lines{"B | 100 101 102 103 ", "103 | 104 105 106 107 ", "105 106 107 | 108 109 "});
  CHECK(lines(protocols::lmeval(4), two) ==
        Lines{"B | 100 101 102 103 ", "100 101 102 103 | 104 ", "B | 105 106 "});
  CHECK(lines(protocols::mean_of_ppl(4), two) == Lines{"B | 100 101 102 ", "B | 105 106 "});
  const Numbers without({10}, std::nullopt);
  CHECK(lines(protocols::llamacpp(5), without) ==
        Lines{"100 101 102 | 103 104 ", "105 106 107 | 108 109 "});
  CHECK(lines(protocols::yarn_truncate(4), without) == Lines{"100 | 101 102 103 "});
}

TEST_CASE("eval/windows: lengths that the peer feeds, weights, documents left out") {
  const Numbers ten({10}), three({6, 2, 9});
  CHECK(lower(protocols::lmeval(4), ten.text()).windows[1].seq_len == 4);  // not its last target
  CHECK(lower(protocols::hf(4, 2), ten.text()).windows[1].seq_len == 4);   // labels are the ids
  CHECK(lower(protocols::llamacpp(5), ten.text()).windows[0].seq_len == 5);
  CHECK(lower(protocols::yarn(4, 2), ten.text()).windows[0].seq_len == 4);
  const WindowPlan growing = lower(protocols::press(4, 2), ten.text());
  CHECK(growing.windows[0].seq_len == 2);
  CHECK(growing.windows[1].seq_len == 4);
  CHECK(growing.windows[2].seq_len == 4);
  const WindowPlan hf = lower(protocols::hf(4, 2), ten.text());
  CHECK(hf.windows[0].weight == 3);
  CHECK(hf.windows[1].weight == 1);  // two scored: one too few, as published
  const WindowPlan cut = lower(protocols::yarn(4, 2, 6), three.text());
  CHECK(cut.documents == 2);
  CHECK(cut.documents_left_out == 1);
  CHECK(cut.text_tokens == 15);
  CHECK(cut.windows.back().text == 2);
  CHECK(lower(protocols::hf(4, 2), three.text()).documents == 3);
}

TEST_CASE("eval/windows: a text too short is an error that says how much is needed") {
  const auto error = [](const Protocol& p, std::vector<std::int64_t> sizes,
                        std::optional<TokenId> bos = 1) {
    const Numbers n(sizes, bos);
    return error_of([&] { lower(p, n.text()); });
  };
  const auto accepted = [&](const Protocol& p, std::vector<std::int64_t> sizes) {
    return error(p, std::move(sizes)).kind == ErrorClass::internal;  // "no error"
  };
  // Each at its least length, and one token less.
  CHECK(accepted(protocols::prefix(8), {9}));
  CHECK(error(protocols::prefix(8), {8}).found == "8 tokens");
  CHECK(accepted(protocols::press(8), {8}));
  CHECK(error(protocols::press(8), {7}).kind == ErrorClass::usage);
  CHECK(accepted(protocols::hf(8, 4), {8}));
  CHECK(error(protocols::hf(8, 4), {7}).kind == ErrorClass::usage);
  CHECK(accepted(protocols::yarn(8, 4), {3, 7}));
  CHECK(error(protocols::yarn(8, 4), {3, 6}).found == "6 tokens in the longest document");
  CHECK(accepted(protocols::yarn_truncate(8), {3, 8}));
  CHECK(error(protocols::yarn_truncate(8), {3, 7}).kind == ErrorClass::usage);
  CHECK(accepted(protocols::longlora(8, 4), {13}));
  CHECK(error(protocols::longlora(8, 4), {12}).expected.find("at least 13") == 0);
  CHECK(accepted(protocols::llamacpp(8), {15}));  // and BOS
  CHECK(error(protocols::llamacpp(8), {14}).expected.find("at least 16") == 0);
  CHECK(accepted(protocols::llamacpp_stride(8, 4), {19}));
  CHECK(error(protocols::llamacpp_stride(8, 4), {18}).kind == ErrorClass::usage);
  CHECK(accepted(protocols::lmeval(8), {1}));  // rolling windows are as long as the text
  CHECK(error(protocols::lmeval(8), {0}).kind == ErrorClass::usage);
  CHECK(accepted(protocols::mean_of_ppl(8), {7}));
  CHECK(error(protocols::mean_of_ppl(8), {6}).kind == ErrorClass::usage);
  for (const std::string_view name : protocol_names) {
    CHECK(error(make_protocol(name, 64), {}).kind == ErrorClass::usage);
    CHECK(error(make_protocol(name, 64), {0, 0}).kind == ErrorClass::usage);
  }
  CHECK(error(protocols::lmeval(8), {20}, std::nullopt).field == "prefix_id");
  CHECK(error(protocols::press(8), {20}, std::nullopt).field == "prefix_id");
}

TEST_CASE("eval/windows: parts of a text that do not fit together are refused") {
  const std::vector<TokenId> ids(10, 1);
  const Protocol p = protocols::hf(4);
  const auto outcome = [&](const EvalText& text) { return outcome_of([&] { lower(p, text); }); };
  const std::vector<std::int64_t> good = {0, 4, 10}, short_cut = {0, 4, 9}, late = {1, 10},
                                  down = {0, 7, 4, 10}, one = {0};
  const std::vector<std::uint32_t> bytes(9, 1);
  CHECK(outcome({.ids = ids, .cu_seqlens = good}) == "accepted");
  CHECK(outcome({.ids = ids}) == "accepted");
  for (const auto& cuts : {short_cut, late, down, one}) {
    CHECK(outcome({.ids = ids, .cu_seqlens = cuts}) == "usage");
  }
  CHECK(outcome({.ids = ids, .bytes = bytes}) == "usage");
  CHECK(outcome({.ids = ids, .cu_seqlens = good, .words = one}) == "usage");
  CHECK(outcome({.ids = ids, .prefix_id = -3}) == "usage");
}
