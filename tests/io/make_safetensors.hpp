// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Builds safetensors files, valid or not, in memory.

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ropewalk {

inline std::string little_endian(std::uint64_t value, std::size_t bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>((value >> (8 * i)) & 0xff);
  return out;
}

template <class T>
std::string bytes_of(std::span<const T> values) {
  std::string out(values.size_bytes(), '\0');
  if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

/// Length, header text, data; nothing is checked.
inline std::string raw_safetensors(std::string_view header, std::string_view data) {
  return little_endian(header.size(), 8) + std::string(header) + std::string(data);
}

/// One tensor for make_safetensors.
struct TensorBytes {
  std::string name = {};
  std::string dtype = {};
  std::vector<std::int64_t> shape = {};
  std::string data = {};
};

/// A valid file; `metadata` is a JSON object or empty.
inline std::string make_safetensors(const std::vector<TensorBytes>& tensors,
                                    const std::string& metadata = {}) {
  std::string header = "{", data;
  if (!metadata.empty()) header += "\"__metadata__\":" + metadata;
  for (const TensorBytes& t : tensors) {
    std::string shape;
    for (const std::int64_t n : t.shape) shape += (shape.empty() ? "" : ",") + std::to_string(n);
    header += (header.size() > 1 ? ",\"" : "\"") + t.name + "\":{\"dtype\":\"" + t.dtype +
              "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(data.size()) +
              "," + std::to_string(data.size() + t.data.size()) + "]}";
    data += t.data;
  }
  return raw_safetensors(header + "}", data);
}

}  // namespace ropewalk
