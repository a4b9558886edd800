// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A protocol and documents lowered to windows: which tokens are fed and which losses count.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/eval/protocol.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What is scored. Views; the ids are without the prefix tokens that protocols add themselves.
struct EvalText {
  std::span<const TokenId> ids = {};
  std::span<const std::int64_t> cu_seqlens = {};  ///< (documents + 1) offsets; empty: one document
  std::span<const std::uint32_t> bytes = {};      ///< of text per id; empty: unknown
  std::span<const std::int64_t> words = {};       ///< of each document; empty: unknown
  std::optional<TokenId> prefix_id = {};          ///< BOS, or EOS where the model has no BOS

  index_t num_tokens() const { return static_cast<index_t>(ids.size()); }
  index_t num_documents() const {
    return cu_seqlens.empty() ? 1 : static_cast<index_t>(cu_seqlens.size()) - 1;
  }
  index_t begin_of(index_t document) const {
    return cu_seqlens.empty() ? 0 : cu_seqlens[static_cast<std::size_t>(document)];
  }
  index_t end_of(index_t document) const {
    return cu_seqlens.empty() ? num_tokens() : cu_seqlens[static_cast<std::size_t>(document) + 1];
  }
};

/// \throws Error(usage) when the parts of a text do not fit together
inline void check(const EvalText& text) {
  const std::span<const std::int64_t> cuts = text.cu_seqlens;
  require(
      cuts.empty() || (cuts.size() >= 2 && cuts.front() == 0 && cuts.back() == text.num_tokens() &&
                       std::is_sorted(cuts.begin(), cuts.end())),
      "cu_seqlens from 0 to the number of ids, ascending");
  require(text.bytes.empty() || text.bytes.size() == text.ids.size(), "bytes of every id or none");
  require(text.words.empty() || static_cast<index_t>(text.words.size()) == text.num_documents(),
          "words of every document or none");
  require(!text.prefix_id || *text.prefix_id >= 0, "a prefix_id of at least 0");
}

/// ScoredWindow::prefix of a window without one.
inline constexpr TokenId no_prefix = -1;

/// One window. Its tokens are [prefix] ids[begin, end); token j >= 1 is predicted from tokens
/// 0 .. j - 1, and counts if j >= first_scored.
struct ScoredWindow {
  index_t text = 0;   ///< the document, 0 where they are joined
  index_t begin = 0;  ///< in EvalText::ids
  index_t end = 0;
  TokenId prefix = no_prefix;
  index_t first_scored = 1;
  std::int64_t seq_len = 0;  ///< tokens that the peer feeds: what length-dependent policies see
  double weight = 0;         ///< under Aggregation::token

  index_t num_tokens() const { return end - begin + (prefix != no_prefix ? 1 : 0); }
  index_t num_scored() const { return num_tokens() - first_scored; }
  /// Index in EvalText::ids of token j.
  index_t id_index(index_t j) const { return begin + j - (prefix != no_prefix ? 1 : 0); }
  friend bool operator==(const ScoredWindow&, const ScoredWindow&) = default;
};

/// A protocol's windows over a text, in reading order.
struct WindowPlan {
  Protocol protocol = {};
  std::vector<ScoredWindow> windows = {};
  index_t documents = 0;           ///< read
  index_t documents_left_out = 0;  ///< shorter than min_text_tokens
  index_t text_tokens = 0;         ///< of the documents read
  std::int64_t words = 0;          ///< of the documents read; 0: unknown
  std::int64_t text_bytes = 0;     ///< of the documents read; 0: unknown
};

namespace detail {

/// Cuts one text, ids [text_begin, text_end). The stream is the text, after the prefix token where
/// the protocol puts one there.
class WindowCutter {
 public:
  WindowCutter(const Protocol& p, const EvalText& text, index_t unit, index_t text_begin,
               index_t text_end, std::vector<ScoredWindow>& out)
      : p_(p), unit_(unit), text_begin_(text_begin), out_(out) {
    const PrefixToken where = text.prefix_id ? p.prefix : PrefixToken::none;
    prefix_ = text.prefix_id.value_or(no_prefix);
    every_ = where == PrefixToken::every;
    replace_ = where == PrefixToken::replace;
    in_stream_ = where == PrefixToken::first || replace_;
    stream_ = text_end - text_begin + (in_stream_ ? 1 : 0);
    full_ = p.window - (every_ ? 1 : 0) + (p.predicts_beyond ? 1 : 0);
  }
  index_t stream_tokens() const { return stream_; }
  /// Stream tokens of a full window.
  index_t full_tokens() const { return full_; }
  bool saw_full_window() const { return saw_full_; }

  void cut() {
    const std::size_t before = out_.size();
    index_t previous_end = 0;
    for (index_t k = 0; p_.max_windows == 0 || k < p_.max_windows; ++k) {
      index_t begin = k * p_.stride;
      index_t end = begin + full_;
      if (p_.growing) {
        end = begin + p_.stride + 1;
        begin = std::max<index_t>(0, end - full_);
      } else if (p_.tail == TextTail::reach_back && k > 0) {
        end = std::min(previous_end + p_.window, stream_);
        begin = end - full_;
      }
      if (p_.tail == TextTail::drop && end + p_.spare > stream_) break;
      end = std::min(end, stream_);
      if (begin >= end) break;
      add(begin, end, previous_end);
      previous_end = end;
      if (end == stream_ && p_.tail != TextTail::drop) break;
    }
    const auto skipped = static_cast<std::size_t>(p_.skipped_windows);
    out_.resize(std::max(before, out_.size() - std::min(out_.size(), skipped)));
  }

 private:
  void add(index_t begin, index_t end, index_t previous_end) {
    saw_full_ = saw_full_ || end - begin == full_;
    ScoredWindow w{.text = unit_, .begin = text_begin_ + begin, .end = text_begin_ + end};
    if (in_stream_) {  // stream token i is text token i - 1
      --w.begin;
      --w.end;
    }
    if (every_ || (in_stream_ && begin == 0)) w.prefix = prefix_;
    if (in_stream_ && begin == 0) ++w.begin;
    if (replace_ && begin > 0) {
      w.prefix = prefix_;
      ++w.begin;
    }
    const index_t tokens = w.num_tokens();
    // Labels before they are shifted by one: a window's first token is a label without prediction.
    const index_t labels = std::min(tokens, p_.scored == 0 ? end - previous_end : p_.scored);
    w.first_scored = std::max<index_t>(1, tokens - labels);
    w.seq_len = tokens - (p_.predicts_beyond ? 1 : 0);
    w.weight =
        static_cast<double>(p_.weight == WindowWeight::predictions ? w.num_scored() : labels - 1);
    if (w.num_scored() > 0) out_.push_back(w);
  }

  const Protocol& p_;
  index_t unit_;
  index_t text_begin_;
  std::vector<ScoredWindow>& out_;
  TokenId prefix_ = no_prefix;
  bool every_ = false, replace_ = false, in_stream_ = false, saw_full_ = false;
  index_t stream_ = 0, full_ = 0;
};

[[noreturn]] inline void fail_too_short(const Protocol& p, index_t found, index_t needed) {
  fail({.kind = ErrorClass::usage,
        .where = "protocol " + std::string(p.name),
        .field = "text",
        .found = std::to_string(found) + " tokens" +
                 (p.text == TextUnit::document ? " in the longest document" : ""),
        .expected =
            "at least " + std::to_string(needed) + " for a window of " + std::to_string(p.window),
        .fix = "Give a longer text or a shorter length"});
}

}  // namespace detail

/// Cuts a text into the protocol's windows. Windows without a scored token (a text's last token
/// alone) are left out.
/// \throws Error(usage) for knobs that contradict each other, a text too short for the protocol, a
/// prefix token that the protocol needs and the text does not name
inline WindowPlan lower(const Protocol& p, const EvalText& text) {
  check(p);
  check(text);
  if (p.needs_prefix && !text.prefix_id) {
    fail({.kind = ErrorClass::usage,
          .where = "protocol " + std::string(p.name),
          .field = "prefix_id",
          .found = "none",
          .expected = "the id that begins a text (BOS, or EOS)",
          .fix = "Give a tokenizer with BOS, or take a protocol that needs none"});
  }
  WindowPlan plan{.protocol = p};
  index_t longest = 0, needed = 0;
  bool full = false;
  const auto read = [&](index_t unit, index_t begin, index_t end) {
    detail::WindowCutter cutter(p, text, unit, begin, end, plan.windows);
    cutter.cut();
    full = full || cutter.saw_full_window();
    longest = std::max(longest, cutter.stream_tokens());
    needed = cutter.full_tokens() + p.spare + p.stride * p.skipped_windows;
    plan.text_tokens += end - begin;
    for (index_t i = begin; i < end && !text.bytes.empty(); ++i) {
      plan.text_bytes += text.bytes[static_cast<std::size_t>(i)];
    }
  };
  if (p.text == TextUnit::joined) {
    read(0, 0, text.num_tokens());
    if (longest < p.min_text_tokens) detail::fail_too_short(p, longest, p.min_text_tokens);
    plan.documents = text.num_documents();
    for (const std::int64_t words : text.words) plan.words += words;
  } else {
    index_t longest_document = 0;
    for (index_t d = 0; d < text.num_documents(); ++d) {
      const index_t size = text.end_of(d) - text.begin_of(d);
      longest_document = std::max(longest_document, size);
      if (size < std::max<index_t>(1, p.min_text_tokens)) {
        ++plan.documents_left_out;
        continue;
      }
      read(d, text.begin_of(d), text.end_of(d));
      ++plan.documents;
      if (!text.words.empty()) plan.words += text.words[static_cast<std::size_t>(d)];
    }
    if (plan.documents == 0) {
      detail::fail_too_short(p, longest_document, std::max<index_t>(1, p.min_text_tokens));
    }
  }
  if (plan.windows.empty() || (p.needs_full_window && !full)) {
    detail::fail_too_short(p, longest, needed);
  }
  return plan;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
