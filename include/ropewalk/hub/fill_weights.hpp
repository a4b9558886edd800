// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Streams a file's tensors into weights, scanning every value on the way.

#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/model/weights.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Counts numbers that are NaN or infinite as T, by their bits, which no compiler flag can optimise
/// away.
template <class T>
struct FiniteScan {
  std::uint64_t count = 0;  ///< of values that are not finite
  std::int64_t first = -1;  ///< index of the first of them
  float first_value = 0;

  void add(std::span<const float> values, std::int64_t first_index) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float value = to_float(rounded_to<T>(values[i]));
      if ((std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u) continue;
      if (count++ == 0) {
        first = first_index + static_cast<std::int64_t>(i);
        first_value = value;
      }
    }
  }
  /// \throws Error(numeric) that names the tensor, the first index and the count.
  void check(const std::string& file, const std::string& tensor, std::int64_t size) const {
    if (count == 0) return;
    const auto bits = std::bit_cast<std::uint32_t>(first_value);
    const bool nan = (bits & 0x007fffffu) != 0;
    fail({.kind = ErrorClass::numeric,
          .file = file,
          .where = "element " + std::to_string(first),
          .field = tensor,
          .found = std::string(nan                 ? "NaN"
                               : (bits >> 31) != 0 ? "-infinity"
                                                   : "infinity") +
                   "; " + std::to_string(count) + " of " + std::to_string(size) +
                   " values are not finite",
          .expected = std::is_same_v<T, float> ? "finite weights" : "weights finite in bf16",
          .fix = "Get the file again, or the checkpoint from before the training diverged"});
  }
};

namespace detail {

/// Reads a (rows, columns) tensor that will be stored as T and gives it to `store(first_row,
/// values)` 64 rows at a time, so that the peak of memory is the model and one strip.
template <class T, class Reader, class Store>
void stream_tensor(const std::string& file, const std::string& name, index_t rows, index_t columns,
                   Reader&& read, Hasher& hash, Store&& store) {
  hash.text(name).value(std::int64_t{rows}).value(std::int64_t{columns});
  FiniteScan<T> scan;
  const index_t strip = rows < panel_width ? rows : panel_width;
  std::vector<float> buffer(
      static_cast<std::size_t>(checked_mul(strip, columns, "rows of a tensor")));
  for (index_t r = 0; r < rows; r += strip) {
    const index_t count = rows - r < strip ? rows - r : strip;
    const std::span<float> values(buffer.data(), static_cast<std::size_t>(count * columns));
    read(std::int64_t{r * columns}, values);
    hash.bytes(std::as_bytes(values));
    scan.add(values, r * columns);
    store(r, std::span<const float>(values));
  }
  scan.check(file, name, rows * columns);
}

}  // namespace detail

/// Fills a parameter from `read(first_element, std::span<float>)`, which gives consecutive elements
/// in row-major order of the logical shape; adds name, shape and values to `hash`.
/// \throws Error(numeric) when a value is not finite, or not when rounded to T.
template <class T, class Reader>
void fill_parameter(const std::string& file, const std::string& name, PackedMatrix<T>& to,
                    Reader&& read, Hasher& hash) {
  const index_t inputs = to.inputs();
  detail::stream_tensor<T>(
      file, name, to.outputs(), inputs, read, hash,
      [&](index_t first_row, std::span<const float> values) {
        const index_t rows = static_cast<index_t>(values.size()) / inputs;
        // Inputs outermost: the rows of a panel lie side by side in storage.
        for (index_t k = 0; k < inputs; ++k) {
          for (index_t r = 0; r < rows; ++r) {
            to(first_row + r, k) = rounded_to<T>(values[static_cast<std::size_t>(r * inputs + k)]);
          }
        }
      });
}

template <class Reader>
void fill_parameter(const std::string& file, const std::string& name, Buffer<float>& to,
                    Reader&& read, Hasher& hash) {
  detail::stream_tensor<float>(file, name, 1, to.size(), read, hash,
                               [&](index_t, std::span<const float> values) {
                                 std::copy(values.begin(), values.end(), to.data());
                               });
}

}  // namespace ropewalk::inline ROPEWALK_ABI
