// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What the header of a safetensors file says, and the reader that takes it from JSON events.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/io/json_events.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A dtype of the format. Source: safetensors/src/tensor.rs.
struct SafetensorsDType {
  std::string_view name;
  unsigned bits = 0;
};

inline constexpr std::array<SafetensorsDType, 22> safetensors_dtypes{{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};

/// Limits beyond those of the format itself.
struct SafetensorsLimits {
  std::uint64_t max_header = 100'000'000;
  std::size_t max_tensors = std::size_t{1} << 20;
  std::size_t max_rank = 8;
  std::uint64_t max_dim = std::uint64_t{1} << 48;
  std::size_t max_name = 4096;
};

/// One tensor: C order, little-endian.
struct SafetensorsTensor {
  std::string name = {};
  std::size_t dtype = 0;  ///< index into safetensors_dtypes
  std::vector<std::uint64_t> shape = {};
  std::uint64_t begin = 0;  ///< byte range in the data, which starts at data_offset
  std::uint64_t end = 0;
  std::uint64_t elements = 0;

  std::string_view dtype_name() const { return safetensors_dtypes[dtype].name; }
};

/// "[2048, 128]"
inline std::string shape_text(std::span<const std::uint64_t> shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return out + "]";
}

/// A valid header.
struct SafetensorsIndex {
  std::string file = {};                        ///< name of the source
  std::uint64_t data_offset = 0;                ///< of the data in the file
  std::vector<SafetensorsTensor> tensors = {};  ///< in the order of their data
  std::vector<std::pair<std::string, std::string>> metadata = {};
  std::vector<std::string> notes = {};
  std::vector<std::uint32_t> slots = {};  ///< hash table of indices + 1 into tensors; see find

  /// Null pointer when there is none of this name.
  const SafetensorsTensor* find(std::string_view name) const {
    if (slots.empty()) return nullptr;
    for (std::size_t i = first_slot(name);; i = (i + 1) & (slots.size() - 1)) {
      if (slots[i] == 0) return nullptr;
      if (tensors[slots[i] - 1].name == name) return &tensors[slots[i] - 1];
    }
  }
  /// Makes the table for find. Call it once tensors is complete.
  void build_table() {
    std::size_t size = 1;
    while (size < 2 * tensors.size() + 1) size *= 2;
    slots.assign(size, 0);
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      std::size_t i = first_slot(tensors[t].name);
      while (slots[i] != 0) i = (i + 1) & (size - 1);
      slots[i] = static_cast<std::uint32_t>(t + 1);
    }
  }

 private:
  std::size_t first_slot(std::string_view name) const {
    return XXH64(name.data(), name.size(), 0) & (slots.size() - 1);
  }
};

namespace detail {

/// Takes the header's events apart without a tree: memory stays below twice the header.
class SafetensorsHeaderReader {
 public:
  SafetensorsHeaderReader(SafetensorsIndex& out, const SafetensorsLimits& limits)
      : out_(out), limits_(limits) {}

  void null(const JsonPath& path) { scalar(path, "null"); }
  void boolean(const JsonPath& path, bool v) { scalar(path, v ? "true" : "false"); }
  void number(const JsonPath& path, const JsonNumber& n) {
    if (skipping(path)) return;
    const bool in_list = path.depth() == 3 && in_array_;
    if (in_list && (field_ == Field::shape || field_ == Field::offsets)) {
      if (n.form == JsonNumber::Form::huge) {
        refuse(path, "an integer beyond 64 bits", "a size", ErrorClass::limit);
      }
      if (n.form != JsonNumber::Form::natural) {
        refuse(path, "a number that is not a natural one", "an integer of at least 0");
      }
      if (field_ == Field::shape) {
        if (n.natural > limits_.max_dim) {
          refuse(path, std::to_string(n.natural), "at most " + std::to_string(limits_.max_dim),
                 ErrorClass::limit);
        }
        if (tensor_.shape.size() == limits_.max_rank) {
          refuse(path, "more dimensions", "a rank of at most " + std::to_string(limits_.max_rank),
                 ErrorClass::limit);
        }
        tensor_.shape.push_back(n.natural);
      } else {
        if (num_offsets_ < 2) (num_offsets_ == 0 ? tensor_.begin : tensor_.end) = n.natural;
        ++num_offsets_;
      }
      return;
    }
    scalar(path, "a number");
  }
  void string(const JsonPath& path, std::string v) {
    if (skipping(path)) return;
    if (in_metadata_ && path.depth() == 2) {
      out_.metadata.emplace_back(std::move(metadata_key_), std::move(v));
      return;
    }
    if (path.depth() == 2 && field_ == Field::dtype) {
      for (std::size_t i = 0; i < safetensors_dtypes.size(); ++i) {
        if (safetensors_dtypes[i].name == v) {
          tensor_.dtype = i;
          return;
        }
      }
      std::string known;
      for (const SafetensorsDType& d : safetensors_dtypes) {
        known += (known.empty() ? "" : " ") + std::string(d.name);
      }
      refuse(path, escaped(v), "one of " + known);
    }
    scalar(path, "a string");
  }
  void begin_object(const JsonPath& path) {
    if (skipping(path)) return;
    if (path.depth() == 0) return;
    if (path.depth() == 1) {
      has_ = 0;
      num_offsets_ = 0;
      return;
    }
    scalar(path, "an object");
  }
  void key(const JsonPath& path, std::string v) {
    if (path.depth() == 1) {
      in_metadata_ = v == "__metadata__";
      if (in_metadata_) return;
      if (v.empty()) refuse(path, "an empty tensor name", "a name");
      if (v.size() > limits_.max_name) {
        refuse(path, "a tensor name of " + std::to_string(v.size()) + " bytes",
               "at most " + std::to_string(limits_.max_name), ErrorClass::limit);
      }
      if (out_.tensors.size() == limits_.max_tensors) {
        refuse(path, "more tensors", "at most " + std::to_string(limits_.max_tensors),
               ErrorClass::limit);
      }
      tensor_ = {};
      tensor_.name = std::move(v);
    } else if (path.depth() == 2 && in_metadata_) {
      metadata_key_ = std::move(v);
    } else if (path.depth() == 2) {
      field_ = v == "dtype"          ? Field::dtype
               : v == "shape"        ? Field::shape
               : v == "data_offsets" ? Field::offsets
                                     : Field::other;
      if (field_ == Field::other) {
        out_.notes.push_back("tensor " + escaped(tensor_.name) + ": unknown field " + escaped(v) +
                             " ignored");
      } else {
        has_ |= 1u << static_cast<unsigned>(field_);
      }
    }
  }
  void end_object(const JsonPath& path) {
    if (skipping(path) || path.depth() != 1) return;
    if (!in_metadata_) finish_tensor(path);
    in_metadata_ = false;
    field_ = Field::dtype;
  }
  void begin_array(const JsonPath& path) {
    if (skipping(path)) return;
    if (path.depth() == 2 && !in_metadata_ &&
        (field_ == Field::shape || field_ == Field::offsets)) {
      in_array_ = true;
      return;
    }
    scalar(path, "an array");
  }
  void end_array(const JsonPath& path) {
    if (!skipping(path)) in_array_ = false;
  }

 private:
  enum class Field { dtype, shape, offsets, other };

  /// Inside an unknown field of a tensor.
  bool skipping(const JsonPath& path) const {
    return path.depth() >= 2 && !in_metadata_ && field_ == Field::other;
  }
  /// A value of a type that this place does not allow.
  void scalar(const JsonPath& path, const std::string& found) {
    if (skipping(path)) return;
    switch (path.depth()) {
      case 0:
        refuse(path, found, "an object of tensors");
      case 1:
        refuse(path, found, in_metadata_ ? "an object of strings" : "a tensor: an object");
      case 2:
        refuse(path, found,
               in_metadata_             ? "a string"
               : field_ == Field::dtype ? "the name of a dtype"
                                        : "an array of integers of at least 0");
      default:
        refuse(path, found, "an integer of at least 0");
    }
  }
  [[noreturn]] void refuse(const JsonPath& path, std::string found, std::string expected,
                           ErrorClass kind = ErrorClass::format, std::string fix = {}) const {
    fail({.kind = kind,
          .file = out_.file,
          .where = "header" + path.pointer(),
          .found = std::move(found),
          .expected = std::move(expected),
          .fix = std::move(fix)});
  }
  void finish_tensor(const JsonPath& path) {
    constexpr std::array<const char*, 3> names{"dtype", "shape", "data_offsets"};
    for (std::size_t i = 0; i < names.size(); ++i) {
      if ((has_ & (1u << i)) == 0) refuse(path, std::string("no ") + names[i], "the field");
    }
    if (num_offsets_ != 2) {
      refuse(path, std::to_string(num_offsets_) + " data_offsets", "[BEGIN, END]");
    }
    // Sizes of 0 are left out of the product and applied last, so that order does not matter.
    std::uint64_t elements = 1;
    bool none = false;
    for (const std::uint64_t n : tensor_.shape) {
      if (n == 0) {
        none = true;
      } else if (__builtin_mul_overflow(elements, n, &elements)) {
        refuse(path, "the shape " + shape_text(tensor_.shape), "fewer than 2^64 elements",
               ErrorClass::limit);
      }
    }
    tensor_.elements = none ? 0 : elements;
    std::uint64_t bits = 0;
    if (__builtin_mul_overflow(tensor_.elements,
                               std::uint64_t{safetensors_dtypes[tensor_.dtype].bits}, &bits)) {
      refuse(path, "the shape " + shape_text(tensor_.shape), "fewer than 2^64 bits",
             ErrorClass::limit);
    }
    const std::string range =
        "data_offsets [" + std::to_string(tensor_.begin) + ", " + std::to_string(tensor_.end) + "]";
    if (tensor_.end < tensor_.begin) refuse(path, range, "BEGIN <= END");
    if (bits % 8 != 0 || tensor_.end - tensor_.begin != bits / 8) {
      refuse(path, range + ", " + std::to_string(tensor_.end - tensor_.begin) + " bytes",
             (bits % 8 != 0 ? std::to_string(bits) + " bits, which are no whole bytes,"
                            : std::to_string(bits / 8) + " bytes") +
                 " for " + std::string(tensor_.dtype_name()) + " " + shape_text(tensor_.shape));
    }
    out_.tensors.push_back(std::move(tensor_));
  }

  SafetensorsIndex& out_;
  SafetensorsLimits limits_;
  SafetensorsTensor tensor_;
  std::string metadata_key_;
  Field field_ = Field::dtype;
  unsigned has_ = 0;
  std::size_t num_offsets_ = 0;
  bool in_metadata_ = false;
  bool in_array_ = false;
};

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
