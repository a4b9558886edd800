// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <type_traits>

#include "ropewalk/core/error.hpp"
#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/io/json_write.hpp"

namespace cli {

using namespace ropewalk;

namespace {

std::string scalar_json(double v) { return json_number(v); }
std::string scalar_json(std::int64_t v) { return json_number(v); }
std::string scalar_json(const std::string& v) { return json_escape(v); }

/// Characters of UTF-8 text, for alignment.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) >> 6) != 2; }));
}

std::string csv_field(const Value& value) {
  std::string field;
  if (const auto* text = std::get_if<std::string>(&value)) {
    field = *text;
  } else {
    field = to_json(value);
    if (field == "null") field.clear();
    if (!field.empty() && field.front() == '[') {
      field = field.substr(1, field.size() - 2);
      std::replace(field.begin(), field.end(), ',', ' ');
    }
  }
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string quoted = "\"";
  for (const char c : field) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace

Format parse_format(std::string_view name) {
  return name == "csv" ? Format::csv : name == "jsonl" ? Format::jsonl : Format::table;
}

std::string to_json(const Value& value) {
  return std::visit(
      []<class T>(const T& v) -> std::string {
        if constexpr (std::is_same_v<T, std::monostate>) {
          return "null";
        } else if constexpr (std::is_same_v<T, bool>) {
          return v ? "true" : "false";
        } else if constexpr (std::is_same_v<T, std::uint64_t>) {
          return json_number(v);
        } else if constexpr (requires { v.begin(); } && !std::is_same_v<T, std::string>) {
          std::string out = "[";
          for (const auto& item : v) out += (out.size() == 1 ? "" : ",") + scalar_json(item);
          return out + "]";
        } else {
          return scalar_json(v);
        }
      },
      value);
}

std::string to_json(const Row& row) {
  std::string out = "{";
  for (const auto& [key, value] : row) {
    if (out.size() > 1) out += ',';
    out += json_escape(key) + ':' + to_json(value);
  }
  return out + "}";
}

std::string csv_header(const Row& row) {
  std::string out;
  for (const auto& [key, value] : row) out += (out.empty() ? "" : ",") + key;
  return out + "\n";
}

std::string csv_line(const Row& row) {
  std::string out;
  for (std::size_t i = 0; i < row.size(); ++i)
    out += (i == 0 ? "" : ",") + csv_field(row[i].second);
  return out + "\n";
}

std::string aligned_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - width_of(row[c]), ' ');
      line += c == 0 ? row[c] + padding : "  " + padding + row[c];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return;
  fail({.kind = ErrorClass::io, .file = "stdout", .found = os_error_text(errno)});
}

void flush_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  fail({.kind = ErrorClass::io, .file = "stdout", .found = os_error_text(errno)});
}

void remark(bool quiet, std::string_view text) {
  if (quiet) return;
  // Nothing sensible is left to be done when stderr is closed.
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

}  // namespace cli
