// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Writes safetensors files: names and shapes first, then the data in the same order.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ropewalk/core/checked.hpp"
#include "ropewalk/io/atomic_file.hpp"
#include "ropewalk/io/json_write.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A tensor of floats that a file will hold.
struct FloatTensorEntry {
  std::string name;
  std::vector<std::int64_t> shape;

  std::uint64_t elements() const {
    std::uint64_t n = 1;
    for (const std::int64_t e : shape) n = checked_mul(n, static_cast<std::uint64_t>(e), "tensor");
    return n;
  }
};

/// A file of F32 tensors that appears complete under its name, or not at all. Nothing is held in
/// memory but the header.
class SafetensorsWriter {
 public:
  using Metadata = std::vector<std::pair<std::string, std::string>>;

  /// Writes the header. `metadata`: strings, as the format has them; transformers asks for
  /// {"format", "pt"}. \throws Error(io | resource)
  SafetensorsWriter(std::string path, const std::vector<FloatTensorEntry>& tensors,
                    const Metadata& metadata)
      : file_(std::move(path)) {
    std::string header = "{\"__metadata__\":{";
    const char* separator = "";
    for (const auto& [key, value] : metadata) {
      header += separator + json_escape(key) + ":" + json_escape(value);
      separator = ",";
    }
    header += "}";
    for (const FloatTensorEntry& t : tensors) {
      header += "," + json_escape(t.name) + ":{\"dtype\":\"F32\",\"shape\":[";
      separator = "";
      for (const std::int64_t e : t.shape) {
        header += separator + std::to_string(e);
        separator = ",";
      }
      const std::uint64_t end = expected_ + checked_mul(t.elements(), std::uint64_t{4}, "tensor");
      header +=
          "],\"data_offsets\":[" + std::to_string(expected_) + "," + std::to_string(end) + "]}";
      expected_ = end;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::array<std::byte, 8> length{};
    for (std::size_t i = 0; i < 8; ++i) {
      length[i] = static_cast<std::byte>(header.size() >> (8 * i) & 0xff);
    }
    file_.write(length);
    file_.write(header);
  }

  /// The next elements, in the order of the tensors, row-major.
  void write(std::span<const float> values) {
    file_.write(std::as_bytes(values));
    written_ += values.size_bytes();
  }
  /// Makes the file durable under its name. \throws Error(usage) unless all data was written
  void commit() {
    require(written_ == expected_, "as many elements as the tensors have");
    file_.commit();
  }

 private:
  AtomicFile file_;
  std::uint64_t expected_ = 0;
  std::uint64_t written_ = 0;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
