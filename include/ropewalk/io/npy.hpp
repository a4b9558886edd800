// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// NumPy's .npy files of float64 matrices (format 1.0), written and read.

#include <bit>
#include <string>
#include <vector>

#include "ropewalk/core/tensor_view.hpp"
#include "ropewalk/io/atomic_file.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The header of a little-endian float64 array in C order, 64-byte aligned as NumPy writes it.
inline std::string npy_header(index_t rows, index_t columns) {
  std::string dict = "{'descr': '<f8', 'fortran_order': False, 'shape': (" + std::to_string(rows) +
                     ", " + std::to_string(columns) + "), }";
  constexpr std::size_t prefix = 10;  // magic, version, length of the dict
  dict.append(63 - (prefix + dict.size()) % 64, ' ');
  dict += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(dict.size() & 0xff);
  out += static_cast<char>(dict.size() >> 8);
  return out + dict;
}

/// Writes a matrix, atomically. values: (rows, columns)
/// \throws Error(io) or Error(resource); `path` then is as it was.
inline void write_npy(const std::string& path, TensorView<const double, 2> values) {
  static_assert(std::endian::native == std::endian::little);
  AtomicFile file(path);
  file.write(npy_header(values.extent(0), values.extent(1)));
  std::vector<double> row(static_cast<std::size_t>(values.extent(1)));
  for (index_t r = 0; r < values.extent(0); ++r) {
    for (index_t c = 0; c < values.extent(1); ++c) row[static_cast<std::size_t>(c)] = values(r, c);
    file.write(std::as_bytes(std::span<const double>(row)));
  }
  file.commit();
}

/// A float64 matrix as read from a file.
struct NpyMatrix {
  index_t rows = 0;
  index_t columns = 0;
  std::vector<double> values;  ///< (rows, columns)

  TensorView<const double, 2> view() const { return {values.data(), {rows, columns}}; }
};

/// Reads what write_npy wrote, byte for byte the same header. \throws Error(format) otherwise.
template <ByteSource S>
NpyMatrix read_npy(const S& source) {
  const auto refuse = [&source](std::string found) {
    fail({.kind = ErrorClass::format,
          .file = source.name(),
          .where = "header",
          .found = std::move(found),
          .expected = "a .npy 1.0 file of a float64 matrix in C order"});
  };
  if (source.size() < 128) refuse(std::to_string(source.size()) + " bytes");
  const std::string head = read_text(source, 0, 128);
  NpyMatrix out;
  const std::size_t shape = head.find("'shape': (");
  if (shape == std::string::npos) refuse(escaped(head));
  std::size_t at = shape + 10;
  const auto number = [&] {
    index_t n = 0;
    while (at < head.size() && head[at] >= '0' && head[at] <= '9') {
      n = checked_add(checked_mul<index_t>(n, 10, "shape"), index_t{head[at++] - '0'}, "shape");
    }
    at += 2;  // ", " after rows
    return n;
  };
  out.rows = number();
  out.columns = number();
  const std::string expected = npy_header(out.rows, out.columns);
  const index_t count = checked_mul(out.rows, out.columns, "array size");
  const std::uint64_t bytes =
      checked_mul<std::uint64_t>(static_cast<std::uint64_t>(count), 8, "array size in bytes");
  if (head.compare(0, expected.size(), expected) != 0) refuse(escaped(head));
  if (source.size() - expected.size() != bytes) {
    refuse(std::to_string(source.size() - expected.size()) + " bytes of data for " +
           std::to_string(count) + " numbers");
  }
  out.values.resize(static_cast<std::size_t>(count));
  source.read(expected.size(), std::as_writable_bytes(std::span(out.values)));
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
