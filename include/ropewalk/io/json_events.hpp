// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Strict JSON as a stream of events: the parser of all JSON files, with limits and positions.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "ropewalk/core/checked.hpp"
#include "ropewalk/core/hash.hpp"
#include "ropewalk/io/json_path.hpp"
#include "ropewalk/io/utf8.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Limits of a JSON text. Each error names the limit.
struct JsonLimits {
  std::uint64_t max_bytes = 1 << 20;  ///< of the whole text
  std::size_t max_depth = 64;         ///< nested arrays and objects
  std::size_t max_string = 1 << 20;   ///< bytes of a string or key
  std::size_t max_digits = 1000;      ///< characters of a number
};

/// A number as written: integers that fit 64 bits stay exact.
struct JsonNumber {
  enum class Form {
    negative,  ///< `integer` holds it
    natural,   ///< `natural` holds it
    real,      ///< has a fraction or exponent, or is -0
    huge,      ///< digits only, beyond 64 bits; `real` is the nearest double
  };
  Form form = Form::natural;
  std::int64_t integer = 0;
  std::uint64_t natural = 0;
  double real = 0;  ///< always set
};

namespace detail {

/// Reads a string and tells how far it got.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** progress) : at_(at), progress_(progress) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    *progress_ = at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator old = *this;
    ++*this;
    return old;
  }
  friend bool operator==(const CountingIterator& a, const CountingIterator& b) {
    return a.at_ == b.at_;
  }

 private:
  const char* at_;
  const char** progress_;
};

/// nlohmann's SAX interface on our rules: depth, duplicate keys, long strings and numbers.
template <class Handler>
class JsonSax {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  JsonSax(std::string_view text, const char* const* progress, const JsonLimits& limits,
          const std::string& file, std::uint64_t base, Handler& handler)
      : text_(text),
        progress_(progress),
        limits_(limits),
        file_(file),
        base_(base),
        handler_(handler) {}

  bool null() {
    return value([&] { handler_.null(path_); });
  }
  bool boolean(bool v) {
    return value([&] { handler_.boolean(path_, v); });
  }
  bool number_integer(number_integer_t v) {
    JsonNumber n{.form = JsonNumber::Form::negative, .integer = v, .real = static_cast<double>(v)};
    // The lexer says -0 with this event too; as an integer it would lose its sign.
    if (v == 0) n.form = JsonNumber::Form::real, n.real = -0.0;
    return value([&] { handler_.number(path_, n); });
  }
  bool number_unsigned(number_unsigned_t v) {
    return value([&] {
      handler_.number(
          path_, {.form = JsonNumber::Form::natural, .natural = v, .real = static_cast<double>(v)});
    });
  }
  bool number_float(number_float_t v, const string_t& digits) {
    return value([&] {
      check_length("number", digits.size(), limits_.max_digits);
      const bool integral = digits.find_first_not_of("-0123456789") == std::string::npos;
      handler_.number(
          path_, {.form = integral ? JsonNumber::Form::huge : JsonNumber::Form::real, .real = v});
    });
  }
  bool string(string_t& v) {
    return value([&] {
      check_length("string", v.size(), limits_.max_string);
      handler_.string(path_, std::move(v));
    });
  }
  bool binary(binary_t&) { return true; }  // not in JSON text
  bool start_object(std::size_t) {
    path_.next_element();
    check_depth();
    handler_.begin_object(path_);
    path_.enter_object();
    if (num_open_objects_ == keys_.size()) keys_.emplace_back();
    keys_[num_open_objects_++].clear();
    return true;
  }
  bool key(string_t& v) {
    check_length("key", v.size(), limits_.max_string);
    const bool fresh = keys_[num_open_objects_ - 1].insert(XXH64(v.data(), v.size(), 0));
    path_.set_key(v);
    if (!fresh) {
      fail({.kind = ErrorClass::format,
            .file = file_,
            .where = position(consumed()),
            .field = path_.pointer(),
            .found = "the key " + escaped(v) + " a second time",
            .expected = "each key once in an object",
            .fix = "Remove one of the two"});
    }
    handler_.key(path_, std::move(v));
    return true;
  }
  bool end_object() {
    --num_open_objects_;
    path_.leave();
    handler_.end_object(path_);
    return true;
  }
  bool start_array(std::size_t) {
    path_.next_element();
    check_depth();
    handler_.begin_array(path_);
    path_.enter_array();
    return true;
  }
  bool end_array() {
    path_.leave();
    handler_.end_array(path_);
    return true;
  }
  bool parse_error(std::size_t, const std::string& last_token,
                   const nlohmann::detail::exception& e) {
    // A number that overflows even a double.
    if (e.id == 406) {
      const bool integral = last_token.find_first_not_of("-0123456789") == std::string::npos;
      fail({.kind = integral ? ErrorClass::limit : ErrorClass::format,
            .file = file_,
            .where = position(consumed()),
            .field = path_.pointer(),
            .found = escaped(last_token),
            .expected = "a finite number"});
    }
    // Between "syntax error " and "; last read", which quotes the file unescaped.
    std::string what = e.what();
    if (const auto begin = what.find("syntax error "); begin != std::string::npos) {
      what = what.substr(begin);
    }
    std::string rest;
    if (const auto cut = what.find("; last read: "); cut != std::string::npos) {
      if (const auto more = what.rfind("'; expected "); more != std::string::npos && more > cut) {
        rest = what.substr(more + 1);
      }
      what.resize(cut);
    }
    const bool at_end =
        consumed() >= text_.size() && what.find("unexpected end of input") != std::string::npos;
    fail({.kind = ErrorClass::format,
          .file = file_,
          .where = position(at_end ? text_.size() : consumed() - (consumed() > 0 ? 1 : 0)),
          .field = path_.pointer(),
          .found = what + rest,
          .expected = "JSON (RFC 8259)",
          .fix = at_end ? "Get the file again: it is truncated" : ""});
  }

  /// "byte 12 (line 1, column 13)": offset in the file, lines in the text.
  std::string position(std::size_t at) const {
    std::size_t line = 1, start = 0;
    for (std::size_t i = 0; i < at && i < text_.size(); ++i) {
      if (text_[i] == '\n') ++line, start = i + 1;
    }
    return "byte " + std::to_string(base_ + at) + " (line " + std::to_string(line) + ", column " +
           std::to_string(at - start + 1) + ")";
  }

 private:
  template <class Call>
  bool value(Call&& call) {
    path_.next_element();
    call();
    return true;
  }
  std::size_t consumed() const { return static_cast<std::size_t>(*progress_ - text_.data()); }
  void check_depth() const {
    if (path_.depth() < limits_.max_depth) return;
    fail({.kind = ErrorClass::limit,
          .file = file_,
          .where = position(consumed()),
          .found = "arrays and objects nested deeper than " + std::to_string(limits_.max_depth),
          .expected = "a depth of at most " + std::to_string(limits_.max_depth)});
  }
  void check_length(const char* what, std::size_t length, std::size_t limit) const {
    if (length <= limit) return;
    fail({.kind = ErrorClass::limit,
          .file = file_,
          .where = position(consumed()),
          .found = "a " + std::string(what) + " of " + std::to_string(length) + " bytes",
          .expected = "at most " + std::to_string(limit)});
  }

  std::string_view text_;
  const char* const* progress_;
  JsonLimits limits_;
  const std::string& file_;
  std::uint64_t base_;
  Handler& handler_;
  JsonPath path_;
  std::vector<KeySet> keys_;  // of the open objects; the rest is kept for reuse
  std::size_t num_open_objects_ = 0;
};

}  // namespace detail

/// Parses `text` and calls the handler: null(path), boolean(path, bool), number(path, JsonNumber),
/// string(path, std::string), begin_object(path), key(path, std::string), end_object(path),
/// begin_array(path), end_array(path). `path` points to the value; for key() to its value-to-be.
/// Stricter than RFC 8259: no duplicate keys at any depth, no numbers beyond double, no byte order
/// mark. `base_offset` is where the text lies in `file`, for messages.
/// \throws Error(format) or Error(limit) with byte offset, line and column; what the handler
/// throws.
/// **Cost:** linear; no recursion.
template <class Handler>
void parse_json_events(std::string_view text, const std::string& file, const JsonLimits& limits,
                       Handler& handler, std::uint64_t base_offset = 0) {
  if (text.size() > limits.max_bytes) {
    fail({.kind = ErrorClass::limit,
          .file = file,
          .found = std::to_string(text.size()) + " bytes of JSON",
          .expected = "at most " + std::to_string(limits.max_bytes)});
  }
  const auto begins = [text](std::string_view s) { return text.substr(0, s.size()) == s; };
  const bool utf16 = begins("\xff\xfe") || begins("\xfe\xff") ||
                     (text.size() >= 2 && ((text[0] == '\0') != (text[1] == '\0')));
  if (utf16 || begins("\xef\xbb\xbf")) {
    fail({.kind = ErrorClass::format,
          .file = file,
          .where = "byte " + std::to_string(base_offset),
          .found = utf16 ? "UTF-16 text" : "a UTF-8 byte order mark",
          .expected = "UTF-8 without a byte order mark",
          .fix = "Save the file as plain UTF-8"});
  }
  // The lexer keeps the white space it skips; padding can be as long as the rest.
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  std::string_view body = text;
  while (!body.empty() && is_space(body.back())) body.remove_suffix(1);
  std::size_t skipped = 0;
  while (skipped < body.size() && is_space(body[skipped])) ++skipped;

  const char* progress = text.data() + skipped;
  detail::JsonSax<Handler> sax(text, &progress, limits, file, base_offset, handler);
  // The lexer takes a NUL for the end of the text.
  const std::size_t bad = std::min(find_invalid_utf8(body), body.find('\0'));
  if (bad != std::string_view::npos) {
    fail({.kind = ErrorClass::format,
          .file = file,
          .where = sax.position(bad),
          .found = "the byte " + escaped(body.substr(bad, 1)),
          .expected = "UTF-8 text without NUL"});
  }
  const detail::CountingIterator begin(body.data() + skipped, &progress);
  const detail::CountingIterator end(body.data() + body.size(), &progress);
  if (!nlohmann::json::sax_parse(begin, end, &sax)) {
    fail({.kind = ErrorClass::format, .file = file, .expected = "JSON (RFC 8259)"});
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
