// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The library's one exception type, which says what was wrong and how to mend it.

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

enum class ErrorClass {
  usage,        ///< bad argument of a call or of the command line
  format,       ///< a file does not follow its format
  limit,        ///< a number in a file or request exceeds a stated limit
  config,       ///< a configuration value breaks its rule
  mismatch,     ///< two inputs do not belong together
  path,         ///< a file name that is not allowed
  unsupported,  ///< valid, but not implemented
  resource,     ///< memory, disk or descriptors do not suffice
  lock,         ///< held by another process
  state,        ///< a results file or checkpoint is corrupt
  resume,       ///< a results file or checkpoint belongs to another configuration
  io,           ///< the operating system failed a read or write
  numeric,      ///< a value is not finite
  internal,     ///< a bug of ours
};

/// Lower-case name of the class, as printed in messages.
constexpr std::string_view error_class_name(ErrorClass c) {
  switch (c) {
    case ErrorClass::usage:
      return "usage";
    case ErrorClass::format:
      return "format";
    case ErrorClass::limit:
      return "limit";
    case ErrorClass::config:
      return "config";
    case ErrorClass::mismatch:
      return "mismatch";
    case ErrorClass::path:
      return "path";
    case ErrorClass::unsupported:
      return "unsupported";
    case ErrorClass::resource:
      return "resource";
    case ErrorClass::lock:
      return "lock";
    case ErrorClass::state:
      return "state";
    case ErrorClass::resume:
      return "resume";
    case ErrorClass::io:
      return "io";
    case ErrorClass::numeric:
      return "numeric";
    case ErrorClass::internal:
      return "internal";
  }
  return "internal";
}

/// Exit code of a program that ends with an error of this class (docs/formats.md).
constexpr int exit_code(ErrorClass c) {
  switch (c) {
    case ErrorClass::usage:
      return 2;
    case ErrorClass::format:
    case ErrorClass::limit:
    case ErrorClass::config:
    case ErrorClass::mismatch:
    case ErrorClass::path:
      return 3;
    case ErrorClass::unsupported:
      return 4;
    case ErrorClass::resource:
      return 5;
    case ErrorClass::lock:
    case ErrorClass::state:
    case ErrorClass::resume:
      return 6;
    case ErrorClass::io:
      return 7;
    case ErrorClass::numeric:
      return 8;
    case ErrorClass::internal:
      return 70;
  }
  return 70;
}

/// `text` with control bytes and non-ASCII bytes as \xNN, quoted, cut to 120 bytes: safe to print.
inline std::string escaped(std::string_view text) {
  constexpr std::size_t limit = 120;
  constexpr char hex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    if (out.size() > limit) {
      out += "...";
      break;
    }
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (u < 0x20 || u >= 0x7f) {
      out += "\\x";
      out += hex[u >> 4];
      out += hex[u & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

/// What an error says. Empty members are left out of the message.
struct ErrorInfo {
  ErrorClass kind = ErrorClass::internal;
  std::string file = {};      ///< as the user gave it
  std::string where = {};     ///< byte offset, JSON pointer, line:column or function
  std::string field = {};     ///< parameter, key or tensor name
  std::string found = {};     ///< the offending value, already escaped where it came from a file
  std::string expected = {};  ///< the rule
  std::string fix = {};       ///< one imperative sentence
};

/// One line: `file: where: field: found X, expected Y. Fix.`
inline std::string to_text(const ErrorInfo& e) {
  std::string out;
  const auto part = [&out](std::string_view text) {
    if (text.empty()) return;
    if (!out.empty()) out += ": ";
    out += text;
  };
  part(e.file);
  part(e.where);
  part(e.field);
  std::string rule;
  if (!e.found.empty()) rule += "found " + e.found;
  if (!e.expected.empty()) rule += (rule.empty() ? "expected " : ", expected ") + e.expected;
  part(rule);
  if (!e.fix.empty()) out += (out.empty() ? "" : ". ") + e.fix;
  return out;
}

/// Thrown at public boundaries; what() is to_text(info()).
class Error : public std::runtime_error {
 public:
  explicit Error(ErrorInfo info) : std::runtime_error(to_text(info)), info_(std::move(info)) {}
  const ErrorInfo& info() const noexcept { return info_; }
  ErrorClass kind() const noexcept { return info_.kind; }

 private:
  ErrorInfo info_;
};

[[noreturn]] inline void fail(ErrorInfo info) { throw Error(std::move(info)); }

/// Checks an argument of a public call. \throws Error(usage) that names the calling function.
inline void require(bool condition, const char* what_the_caller_must_give,
                    const char* function = __builtin_FUNCTION()) {
  if (!condition) {
    fail({.kind = ErrorClass::usage, .where = function, .expected = what_the_caller_must_give});
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
