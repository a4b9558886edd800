// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Pre-tokenization: cuts a text into the words inside of which byte pairs are merged.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ropewalk/text/aligned_text.hpp"
#include "ropewalk/text/pattern.hpp"
#include "ropewalk/text/unicode.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What becomes of the matches of a Split, which stand between parts that do not match.
enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

struct SplitStep {
  std::variant<std::string, Pattern> what = std::string();
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  ///< what does not match is the delimiter
};
/// Decimal digits and other numbers (N*) apart from the rest.
struct DigitsStep {
  bool individual = false;
};
struct PunctuationStep {
  SplitBehavior behavior = SplitBehavior::isolated;
};
/// Spaces become `replacement`, which is put before the text and begins every word.
struct MetaspaceStep {
  enum class Prepend { always, first, never };
  std::string replacement = "\xe2\x96\x81";  // U+2581
  Prepend prepend = Prepend::always;         ///< unless the text begins with it
  bool split = true;
};
/// Cuts by a pattern; the words are bytes from here on.
struct ByteLevelStep {
  bool add_prefix_space = false;  ///< unless the text begins with one
  std::optional<Pattern> pattern = {};
};
using PreTokenizerStep =
    std::variant<SplitStep, DigitsStep, PunctuationStep, MetaspaceStep, ByteLevelStep>;

namespace detail {

/// Takes the parts of a text in order, matching or not, and gives the pieces of a behaviour.
template <class Piece>
class SplitPieces {
 public:
  SplitPieces(SplitBehavior behavior, Piece& piece) : behavior_(behavior), piece_(piece) {}

  void part(std::size_t begin, std::size_t end, bool match) {
    switch (behavior_) {
      case SplitBehavior::isolated:
        emit(begin, end);
        return;
      case SplitBehavior::removed:
        if (!match) emit(begin, end);
        return;
      case SplitBehavior::contiguous:
        if (held_ && match == held_match_) {
          held_end_ = end;
          return;
        }
        break;
      case SplitBehavior::merged_with_previous:
        if (held_ && match && !held_match_) {
          emit(held_begin_, end);
          // The next match finds no part before it to join.
          held_ = false;
          return;
        }
        break;
      case SplitBehavior::merged_with_next:
        if (held_ && held_match_ && !match) {
          emit(held_begin_, end);
          held_ = false;
          return;
        }
        break;
    }
    finish();
    held_ = true;
    held_match_ = match;
    held_begin_ = begin;
    held_end_ = end;
  }
  void finish() {
    if (held_) emit(held_begin_, held_end_);
    held_ = false;
  }

 private:
  void emit(std::size_t begin, std::size_t end) {
    if (begin < end) piece_(begin, end);
  }
  SplitBehavior behavior_;
  Piece& piece_;
  bool held_ = false, held_match_ = false;
  std::size_t held_begin_ = 0, held_end_ = 0;
};

/// Cuts [0, size) at matches found by matches(found), and calls piece(begin, end).
template <class Piece>
void split_by_pattern(std::string_view text, const Pattern& pattern, SplitBehavior behavior,
                      bool invert, bool valid, Piece&& piece) {
  SplitPieces<Piece> pieces(behavior, piece);
  const auto run = [&](std::size_t begin, std::size_t end, bool is_valid) {
    if (!is_valid) {  // a part of its own that is never removed
      pieces.part(begin, end, false);
      return;
    }
    std::size_t at = begin;
    pattern.for_each_match(text.substr(begin, end - begin), [&](std::size_t b, std::size_t e) {
      if (at != begin + b) pieces.part(at, begin + b, invert);
      pieces.part(begin + b, begin + e, !invert);
      at = begin + e;
    });
    if (at != end) pieces.part(at, end, invert);
  };
  if (valid) {
    run(0, text.size(), true);
  } else {
    for_each_utf8_run(text, run);
  }
  pieces.finish();
}

template <class Piece>
void split_by_string(std::string_view text, std::string_view what, SplitBehavior behavior,
                     bool invert, Piece&& piece) {
  SplitPieces<Piece> pieces(behavior, piece);
  std::size_t at = 0;
  for (std::size_t found = text.find(what); found != std::string_view::npos;
       found = text.find(what, at)) {
    if (at != found) pieces.part(at, found, invert);
    at = found + what.size();
    pieces.part(found, at, !invert);
  }
  if (at != text.size()) pieces.part(at, text.size(), invert);
  pieces.finish();
}

/// Every character for which `is_delimiter` holds is a match.
template <class Test, class Piece>
void split_by_character(std::string_view text, Test&& is_delimiter, SplitBehavior behavior,
                        Piece&& piece) {
  SplitPieces<Piece> pieces(behavior, piece);
  std::size_t start = 0, at = 0;
  while (at < text.size()) {
    const std::size_t size = utf8_length(text, at);
    if (size != 0 && is_delimiter(code_point(text, at, size))) {
      if (start != at) pieces.part(start, at, false);
      start = at + size;
      pieces.part(at, start, true);
    }
    at += size == 0 ? 1 : size;
  }
  if (start != text.size()) pieces.part(start, text.size(), false);
  pieces.finish();
}

inline AlignedText prepended(std::string_view what, const TextView& in) {
  AlignedText out;
  out.put(what, in.origin_at(0));
  out.keep(in, 0, in.text.size());
  out.finish(in.origin_at(in.text.size()));
  return out;
}

}  // namespace detail

/// Runs the steps from `first` on and calls word(TextView) for every word, in order. `valid`: the
/// text is known to be UTF-8; else each maximal run of bytes that are not is a part of its own.
/// \throws Error(limit) when a pattern needs more than it may.
template <class Word>
void pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::size_t first, TextView in,
                  bool valid, Word&& word) {
  if (in.text.empty()) return;
  if (first == steps.size()) {
    word(in);
    return;
  }
  const bool last = first + 1 == steps.size();
  const auto next = [&](const TextView& part) {
    if (last) {
      word(part);
    } else {
      pre_tokenize(steps, first + 1, part, valid, word);
    }
  };
  const auto piece = [&](std::size_t begin, std::size_t end) { next(in.sub(begin, end)); };
  const PreTokenizerStep& step = steps[first];
  if (const auto* bytes = std::get_if<ByteLevelStep>(&step)) {
    AlignedText spaced;
    if (bytes->add_prefix_space && !in.text.starts_with(' ')) {
      spaced = detail::prepended(" ", in);
      in = spaced.view();
    }
    if (bytes->pattern) {
      detail::split_by_pattern(in.text, *bytes->pattern, SplitBehavior::isolated, false, valid,
                               piece);
    } else {
      next(in);
    }
  } else if (const auto* split = std::get_if<SplitStep>(&step)) {
    if (const auto* pattern = std::get_if<Pattern>(&split->what)) {
      detail::split_by_pattern(in.text, *pattern, split->behavior, split->invert, valid, piece);
    } else {
      detail::split_by_string(in.text, std::get<std::string>(split->what), split->behavior,
                              split->invert, piece);
    }
  } else if (const auto* digits = std::get_if<DigitsStep>(&step)) {
    detail::split_by_character(
        in.text, is_numeric,
        digits->individual ? SplitBehavior::isolated : SplitBehavior::contiguous, piece);
  } else if (const auto* punctuation = std::get_if<PunctuationStep>(&step)) {
    detail::split_by_character(in.text, is_punctuation, punctuation->behavior, piece);
  } else {
    const auto& meta = std::get<MetaspaceStep>(step);
    AlignedText spaced;
    std::size_t kept = 0;
    const bool at_start = in.origin_at(0) == 0;
    const bool begins = in.text.starts_with(' ') || in.text.starts_with(meta.replacement);
    if (!begins && (meta.prepend == MetaspaceStep::Prepend::always ||
                    (meta.prepend == MetaspaceStep::Prepend::first && at_start))) {
      spaced.put(meta.replacement, in.origin_at(0));
    }
    for (std::size_t at = in.text.find(' '); at != std::string_view::npos;
         at = in.text.find(' ', kept)) {
      spaced.keep(in, kept, at);
      spaced.put(meta.replacement, in.origin_at(at));
      kept = at + 1;
    }
    spaced.keep(in, kept, in.text.size());
    spaced.finish(in.origin_at(in.text.size()));
    in = spaced.view();
    if (meta.split) {
      detail::split_by_string(in.text, meta.replacement, SplitBehavior::merged_with_next, false,
                              piece);
    } else {
      next(in);
    }
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
