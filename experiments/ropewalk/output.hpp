// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Results on stdout (rows as csv or JSON lines, aligned tables), remarks on stderr.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cli {

enum class Format { table, csv, jsonl };
Format parse_format(std::string_view name);

/// A value of a row. monostate is null; so is a number that is not finite.
using Value =
    std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string,
                 std::vector<double>, std::vector<std::int64_t>, std::vector<std::string>>;

/// Named values in the order in which they are printed.
using Row = std::vector<std::pair<std::string, Value>>;

std::string to_json(const Value& value);
/// One JSON object in one line; floating-point numbers with 17 significant digits.
std::string to_json(const Row& row);
std::string csv_header(const Row& row);
/// As RFC 4180; null is an empty field, a list is joined by spaces.
std::string csv_line(const Row& row);

/// Cells of equal width per column: the first column to the left, others to the right. The first
/// row is a header.
std::string aligned_table(const std::vector<std::vector<std::string>>& rows);

/// Writes to stdout. \throws Error(io) when that fails: a full disk, a closed pipe.
void print(std::string_view text);
/// Makes sure that all was written. \throws as print.
void flush_output();

/// A line on stderr, unless quiet.
void remark(bool quiet, std::string_view text);

}  // namespace cli
