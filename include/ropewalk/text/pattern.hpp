// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Regular expressions of tokenizer files, run by PCRE2 with limits.

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

// Whoever includes pcre2.h for another width does so before this header: only the functions of
// 8 bits are used here, and by their full names.
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include "ropewalk/core/error.hpp"
#include "ropewalk/io/utf8.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Limits of one match. A pattern that needs more is refused when it runs: Error(limit).
struct PatternLimits {
  std::uint32_t steps = 10'000'000;    ///< of backtracking
  std::uint32_t depth = 100'000;       ///< nested backtracking points, where PCRE2 interprets
  std::uint32_t heap_kib = 64 * 1024;  ///< memory, where PCRE2 interprets
};

namespace detail {

/// The pattern in PCRE2's language. Tokenizer files mean Oniguruma's (Ruby syntax): `\s` is the
/// property White_Space and `\w` letters, marks, digits and connectors; `^` and `$` match at lines.
/// What the two languages understand differently is refused.
/// \throws Error(unsupported)
inline std::string to_pcre2(std::string_view pattern, const std::string& file,
                            const std::string& where) {
  const auto refuse = [&](std::string_view what) {
    fail({.kind = ErrorClass::unsupported,
          .file = file,
          .where = where,
          .field = "pattern",
          .found = escaped(what) + " in " + escaped(pattern),
          .expected = "what Oniguruma and PCRE2 understand alike"});
  };
  std::string out;
  bool in_class = false, class_start = false, after_braces = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const bool at_class_start = std::exchange(class_start, false);
    const bool possessive_braces = std::exchange(after_braces, false) && c == '+';
    if (possessive_braces) refuse("}+");
    if (c == '\\') {
      if (++i == pattern.size()) refuse("\\");
      const char e = pattern[i];
      constexpr std::string_view word = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";
      const bool letter = (e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z');
      if (e == 's') {
        out += "\\p{White_Space}";
      } else if (e == 'S') {
        out += "\\P{White_Space}";
      } else if (e == 'w') {
        out += in_class ? std::string(word) : "[" + std::string(word) + "]";
      } else if (e == 'W' && !in_class) {
        out += "[^" + std::string(word) + "]";
      } else if (e == 'v') {
        out += "\\x0b";
      } else if (e == 'u') {
        const std::string_view hex = pattern.substr(i + 1, 4);
        if (hex.size() != 4 ||
            hex.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) {
          refuse("\\u");
        }
        out += "\\x{" + std::string(hex) + "}";
        i += 4;
      } else if (letter ? std::string_view("dDpPnrtfeaxAzZ").find(e) != std::string_view::npos
                        : e < '0' || e > '9') {
        out += '\\';
        out += e;
        // Properties and code points in braces, which are no quantifiers.
        if ((e == 'p' || e == 'P' || e == 'x') && pattern.substr(i + 1, 1) == "{") {
          const std::size_t end = std::min(pattern.find('}', i), pattern.size() - 1);
          out += pattern.substr(i + 1, end - i);
          i = end;
        }
      } else {
        refuse(pattern.substr(i - 1, 2));
      }
      continue;
    }
    if (in_class) {
      if (c == '[' && pattern.substr(i, 2) != "[:") refuse("[ inside of [...]");
      if (c == '&' && pattern.substr(i, 2) == "&&") refuse("&&");
      if (c == '[') {  // [:name:]
        const std::size_t end = pattern.find(":]", i);
        if (end == std::string_view::npos) refuse("[:");
        out += pattern.substr(i, end + 2 - i);
        i = end + 1;
        continue;
      }
      if (c == '^' && at_class_start) class_start = true;
      if (c == ']' && at_class_start) refuse("[]");
      if (c == ']') in_class = false;
    } else if (c == '[') {
      in_class = class_start = true;
    } else if (c == '}') {
      after_braces = true;
    } else if (c == '(' && pattern.substr(i, 2) == "(*") {
      refuse("(*");
    } else if (c == '(' && pattern.substr(i, 2) == "(?" && i + 2 < pattern.size()) {
      // Groups, look-around, atomic groups, and the options i and x; (?m) differs.
      const std::size_t colon = pattern.find_first_of(":)", i);
      const std::string_view head = pattern.substr(i + 2, colon - i - 2);
      if (std::string_view(":=!>").find(pattern[i + 2]) == std::string_view::npos &&
          pattern.substr(i + 2, 2) != "<=" && pattern.substr(i + 2, 2) != "<!" &&
          head.find_first_not_of("ix-") != std::string_view::npos) {
        refuse(pattern.substr(i, 4));
      }
    }
    out += c;
  }
  return out;
}

}  // namespace detail

/// A compiled pattern. Const use from several threads is safe.
class Pattern {
 public:
  /// \throws Error(format) when it is no regular expression, Error(unsupported) when it uses what
  /// PCRE2 understands differently from the programs that wrote the file, Error(limit) over 64 KiB.
  explicit Pattern(std::string_view pattern, const std::string& file = {},
                   const std::string& where = {}, const PatternLimits& limits = {})
      : text_(pattern) {
    if (pattern.size() > (1 << 16)) {
      fail({.kind = ErrorClass::limit,
            .file = file,
            .where = where,
            .found = "a pattern of " + std::to_string(pattern.size()) + " bytes",
            .expected = "at most 65536"});
    }
    const std::string translated = detail::to_pcre2(pattern, file, where);
    const std::unique_ptr<pcre2_compile_context_8, FreeCompileContext> settings(
        pcre2_compile_context_create_8(nullptr));
    const std::shared_ptr<pcre2_match_context_8> run(pcre2_match_context_create_8(nullptr),
                                                     pcre2_match_context_free_8);
    if (!settings || !run) fail_memory();
    pcre2_set_newline_8(settings.get(), PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit_8(settings.get(), 100);
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(translated.data()), translated.size(),
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                &error, &at, settings.get()),
                pcre2_code_free_8);
    if (!code_) {
      fail({.kind = ErrorClass::format,
            .file = file,
            .where = where,
            .field = "pattern",
            .found = escaped(pattern),
            .expected = "a regular expression: " + message(error)});
    }
    pcre2_jit_compile_8(code_.get(), PCRE2_JIT_COMPLETE);  // where it fails, PCRE2 interprets
    pcre2_set_match_limit_8(run.get(), limits.steps);
    pcre2_set_depth_limit_8(run.get(), limits.depth);
    pcre2_set_heap_limit_8(run.get(), limits.heap_kib);
    run_ = run;
  }
  const std::string& text() const { return text_; }

  /// Calls found(begin, end) for every match in a valid UTF-8 text, from left to right. Matches may
  /// be empty, but not right behind another. \throws Error(limit)
  template <class Found>
  void for_each_match(std::string_view text, Found&& found) const {
    const std::unique_ptr<pcre2_match_data_8, FreeMatchData> match(
        pcre2_match_data_create_8(1, nullptr));
    if (!match) fail_memory();
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer_8(match.get());
    std::size_t last_end = std::string_view::npos;
    for (std::size_t at = 0; at <= text.size();) {
      if (!match_at(text, at, match.get())) return;
      const std::size_t begin = range[0], end = range[1];
      if (begin == end && end == last_end) {
        if (end == text.size()) return;
        at = end + utf8_length(text, end);
        continue;
      }
      at = last_end = end;
      found(begin, end);
    }
  }

 private:
  struct FreeCompileContext {
    void operator()(pcre2_compile_context_8* p) const { pcre2_compile_context_free_8(p); }
  };
  struct FreeMatchData {
    void operator()(pcre2_match_data_8* p) const { pcre2_match_data_free_8(p); }
  };
  [[noreturn]] static void fail_memory() {
    fail({.kind = ErrorClass::resource, .field = "memory", .found = "an allocation that failed"});
  }
  static std::string message(int error) {
    std::array<PCRE2_UCHAR8, 200> buffer{};
    const int size = pcre2_get_error_message_8(error, buffer.data(), buffer.size());
    return size < 0 ? "error " + std::to_string(error)
                    : std::string(reinterpret_cast<const char*>(buffer.data()));
  }
  bool match_at(std::string_view text, std::size_t at, pcre2_match_data_8* match) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR8>(text.data());
    int rc =
        pcre2_match_8(code_.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK, match, run_.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter has the heap
      rc = pcre2_match_8(code_.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         match, run_.get());
    }
    if (rc >= 0) return true;
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    fail({.kind = ErrorClass::limit,
          .where = "byte " + std::to_string(at) + " of a text",
          .field = "pattern",
          .found = escaped(text_) + ": " + message(rc),
          .expected = "a pattern that finds its matches within the limits",
          .fix = "Give the tokenizer another pattern: this one is not meant for such a text"});
  }

  std::string text_;
  std::shared_ptr<pcre2_code_8> code_;
  std::shared_ptr<pcre2_match_context_8> run_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
