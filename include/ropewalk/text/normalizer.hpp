// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Normalisation: what tokenizers change in a text before they cut it. Every step keeps track of
/// where its output came from; bytes that are not UTF-8 pass unchanged.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ropewalk/text/aligned_text.hpp"
#include "ropewalk/text/pattern.hpp"
#include "ropewalk/text/unicode.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

struct LowercaseStep {};
/// Takes white space off the ends.
struct StripStep {
  bool left = true;
  bool right = true;
};
/// Puts `text` before a text that is not empty.
struct PrependStep {
  std::string text = {};
};
/// Every match of a pattern or of a string becomes `content`.
struct ReplaceStep {
  std::variant<std::string, Pattern> what = std::string();
  std::string content = {};
};
/// Sentencepiece's remove_extra_whitespaces: no space at the ends, none behind another.
struct CollapseSpacesStep {};

using NormalizerStep = std::variant<UnicodeForm, LowercaseStep, StripStep, PrependStep, ReplaceStep,
                                    CollapseSpacesStep>;

namespace detail {

/// Characters that no form of normalisation with composition touches, whatever stands beside them,
/// except a mark behind them: a shortcut for common text.
constexpr bool normalization_inert(std::uint32_t c, UnicodeForm form) {
  if (c < 0x80 || (c >= 0x4e00 && c <= 0x9fff)) return true;
  return form == UnicodeForm::nfc && (c < 0x300 || (c >= 0x2010 && c <= 0x2027) ||
                                      (c >= 0x3001 && c <= 0x3029) || (c >= 0xff01 && c <= 0xff5e));
}

inline int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

/// Whether a character can be joined with what is before it: marks, and the vowels and final
/// consonants of Hangul.
inline bool joins_backward(std::uint32_t c) {
  if ((c >= 0x1160 && c <= 0x11ff) || (c >= 0xd7b0 && c <= 0xd7ff)) return true;
  const utf8proc_category_t k = category(c);
  return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

/// The form of a valid text. Marks are put in order by a stable sort: utf8proc's own is quadratic
/// in their number.
inline std::string unicode_form(std::string_view text, UnicodeForm form) {
  const bool compose = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  const bool compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  const auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                        (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> points;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = utf8_length(text, at);
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    const auto n = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(code_point(text, at, size)), parts, 32, decompose, nullptr);
    if (n >= 0 && n <= 32) points.insert(points.end(), parts, parts + n);
    at += size;
  }
  for (std::size_t i = 0; i < points.size();) {
    std::size_t end = i;
    while (end < points.size() && combining_class(points[end]) != 0) ++end;
    if (end - i > 1) {
      std::stable_sort(points.begin() + static_cast<std::ptrdiff_t>(i),
                       points.begin() + static_cast<std::ptrdiff_t>(end),
                       [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    }
    i = end + 1;
  }
  auto size = static_cast<utf8proc_ssize_t>(points.size());
  if (compose && size > 0) {
    size = utf8proc_normalize_utf32(
        points.data(), size, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  std::string out;
  for (utf8proc_ssize_t i = 0; i < size; ++i) {
    append_utf8(out, static_cast<std::uint32_t>(points[static_cast<std::size_t>(i)]));
  }
  return out;
}

/// Puts the form of in[begin, end), a part that is normalised by itself, cluster by cluster.
inline void put_unicode_form(const TextView& in, std::size_t begin, std::size_t end,
                             const std::string& whole, UnicodeForm form, AlignedText& out) {
  struct Cluster {
    std::size_t begin, end;
    std::string text;
  };
  std::vector<Cluster> clusters;
  std::string joined;
  for (std::size_t at = begin; at < end;) {
    const std::size_t from = at;
    do {
      at += utf8_length(in.text, at);
    } while (at < end && joins_backward(code_point(in.text, at, utf8_length(in.text, at))));
    clusters.push_back({from, at, unicode_form(in.text.substr(from, at - from), form)});
    joined += clusters.back().text;
  }
  if (joined != whole) {  // something joined across: no finer than the part
    out.put(whole, in.origin_at(begin));
    return;
  }
  for (const Cluster& c : clusters) {
    if (c.text == in.text.substr(c.begin, c.end - c.begin)) {
      out.keep(in, c.begin, c.end);
    } else {
      out.put(c.text, in.origin_at(c.begin));
    }
  }
}

/// Each function below writes the changed text to `out` and returns true, or returns false when
/// nothing changes.
inline bool normalize(UnicodeForm form, const TextView& in, AlignedText& out) {
  const std::string_view text = in.text;
  std::size_t kept = 0;      // up to here `out` has it
  std::size_t previous = 0;  // start of the character before `at`, which may be a base
  bool changed = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t plain = skip_ascii(text, at);
    if (plain > at) previous = plain - 1;
    at = plain;
    if (at == text.size()) break;
    const std::size_t size = utf8_length(text, at);
    if (size == 0 || normalization_inert(code_point(text, at, size), form)) {
      previous = size == 0 ? at + 1 : at;  // a byte that is not UTF-8 is no base
      at += size == 0 ? 1 : size;
      continue;
    }
    std::size_t end = at;
    while (end < text.size()) {
      const std::size_t n = utf8_length(text, end);
      if (n == 0 || normalization_inert(code_point(text, end, n), form)) break;
      end += n;
    }
    const std::size_t begin = std::max(previous, kept);
    const std::string_view part = text.substr(begin, end - begin);
    if (const std::string whole = unicode_form(part, form); whole != part) {
      if (!changed) out.clear();
      changed = true;
      out.keep(in, kept, begin);
      put_unicode_form(in, begin, end, whole, form, out);
      kept = end;
    }
    previous = at = end;
  }
  if (!changed) return false;
  out.keep(in, kept, text.size());
  out.finish(in.origin_at(text.size()));
  return true;
}

inline bool normalize(LowercaseStep, const TextView& in, AlignedText& out) {
  out.clear();
  std::string lower;
  bool changed = false;
  for (std::size_t at = 0; at < in.text.size();) {
    const std::size_t size = utf8_length(in.text, at);
    lower.clear();
    if (size != 0) {
      const std::uint32_t c = code_point(in.text, at, size);
      append_utf8(lower, static_cast<std::uint32_t>(utf8proc_tolower(
                             static_cast<utf8proc_int32_t>(c == 0x130 ? 'i' : c))));
      if (c == 0x130) append_utf8(lower, 0x307);  // the one that becomes two characters
    }
    const std::size_t end = at + std::max<std::size_t>(size, 1);
    if (size == 0 || lower == in.text.substr(at, size)) {
      out.keep(in, at, end);
    } else {
      out.put(lower, in.origin_at(at));
      changed = true;
    }
    at = end;
  }
  out.finish(in.origin_at(in.text.size()));
  return changed;
}

inline bool normalize(const StripStep& step, const TextView& in, AlignedText& out) {
  std::size_t begin = 0, last = 0;  // last: end of the last character that is no white space
  bool leading = true;
  for (std::size_t at = 0; at < in.text.size();) {
    const std::size_t size = utf8_length(in.text, at);
    const bool space = size != 0 && is_white_space(code_point(in.text, at, size));
    const std::size_t end = at + std::max<std::size_t>(size, 1);
    leading = leading && space;
    if (leading) begin = end;
    if (!space) last = end;
    at = end;
  }
  if (!step.left) begin = 0;
  const std::size_t end = step.right ? std::max(begin, last) : in.text.size();
  if (begin == 0 && end == in.text.size()) return false;
  out.clear();
  out.keep(in, begin, end);
  out.finish(in.origin_at(in.text.size()));
  return true;
}

inline bool normalize(const PrependStep& step, const TextView& in, AlignedText& out) {
  if (in.text.empty() || step.text.empty()) return false;
  out.clear();
  out.put(step.text, in.origin_at(0));
  out.keep(in, 0, in.text.size());
  out.finish(in.origin_at(in.text.size()));
  return true;
}

inline bool normalize(const ReplaceStep& step, const TextView& in, AlignedText& out) {
  std::size_t kept = 0;
  bool changed = false;
  const auto replace = [&](std::size_t begin, std::size_t end) {
    if (!changed) out.clear();
    changed = true;
    out.keep(in, kept, begin);
    out.put(step.content, in.origin_at(begin));
    kept = end;
  };
  if (const auto* literal = std::get_if<std::string>(&step.what)) {
    if (literal->empty()) return false;
    for (std::size_t at = in.text.find(*literal); at != std::string_view::npos;
         at = in.text.find(*literal, at + literal->size())) {
      replace(at, at + literal->size());
    }
  } else {
    for_each_utf8_run(in.text, [&](std::size_t begin, std::size_t end, bool valid) {
      if (!valid) return;
      std::get<Pattern>(step.what).for_each_match(
          in.text.substr(begin, end - begin),
          [&](std::size_t b, std::size_t e) { replace(begin + b, begin + e); });
    });
  }
  if (!changed) return false;
  out.keep(in, kept, in.text.size());
  out.finish(in.origin_at(in.text.size()));
  return true;
}

inline bool normalize(CollapseSpacesStep, const TextView& in, AlignedText& out) {
  const std::string_view text = in.text;
  const bool clean = text.empty() || (text.front() != ' ' && text.back() != ' ' &&
                                      text.find("  ") == std::string_view::npos);
  if (clean) return false;
  out.clear();
  const std::size_t first = text.find_first_not_of(' ');
  const std::size_t end = first == std::string_view::npos ? 0 : text.find_last_not_of(' ') + 1;
  for (std::size_t at = first; at < end;) {
    const std::size_t stop = std::min(text.find("  ", at), end);
    if (stop == end) {
      out.keep(in, at, end);
      break;
    }
    out.keep(in, at, stop + 1);
    at = text.find_first_not_of(' ', stop);
  }
  out.finish(in.origin_at(text.size()));
  return true;
}

}  // namespace detail

/// Runs the steps in order. The result points into `in` or into one of the two buffers.
/// **Cost:** O(n log n) in the longest run of combining marks, else linear.
/// \throws Error(limit) when a pattern needs more than it may.
inline TextView normalize(const std::vector<NormalizerStep>& steps, TextView in,
                          AlignedText (&buffers)[2]) {
  std::size_t next = 0;
  for (const NormalizerStep& step : steps) {
    const bool changed =
        std::visit([&](const auto& s) { return detail::normalize(s, in, buffers[next]); }, step);
    if (!changed) continue;
    in = buffers[next].view();
    next = 1 - next;
  }
  return in;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
