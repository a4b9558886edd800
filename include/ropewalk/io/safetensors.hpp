// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// safetensors files: the whole header is validated before any tensor is handed out.

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/core/dtype.hpp"
#include "ropewalk/io/file_kind.hpp"
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
  std::vector<std::size_t> by_name = {};  ///< indices into tensors, sorted by name

  /// Null pointer when there is none of this name.
  const SafetensorsTensor* find(std::string_view name) const {
    const auto it = std::lower_bound(
        by_name.begin(), by_name.end(), name,
        [this](std::size_t i, std::string_view wanted) { return tensors[i].name < wanted; });
    if (it == by_name.end() || tensors[*it].name != name) return nullptr;
    return &tensors[*it];
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

/// Sorts by data and checks that the ranges cover the data exactly: no hole, no overlap, no rest.
inline void check_safetensors_coverage(SafetensorsIndex& index, std::uint64_t data_size) {
  auto& tensors = index.tensors;
  const auto before = [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  };
  // Writers store the names in this order, as a rule.
  if (!std::is_sorted(tensors.begin(), tensors.end(), before)) {
    std::stable_sort(tensors.begin(), tensors.end(), before);
  }
  const auto refuse = [&index](std::uint64_t at, std::string field, std::string found,
                               std::string expected, std::string fix) {
    fail({.kind = ErrorClass::format,
          .file = index.file,
          .where = "byte " + std::to_string(checked_add(index.data_offset, at, "file offset")),
          .field = std::move(field),
          .found = std::move(found),
          .expected = std::move(expected),
          .fix = std::move(fix)});
  };
  for (const SafetensorsTensor& t : tensors) {
    if (t.end <= data_size) continue;
    refuse(data_size, "tensor " + escaped(t.name),
           "END = " + std::to_string(t.end) + " of " + std::to_string(data_size) + " bytes of data",
           std::to_string(t.end - data_size) + " more bytes",
           "Get the file again: it is truncated");
  }
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const SafetensorsTensor& t = tensors[i];
    if (t.begin != end) {
      const std::string last =
          i == 0 ? std::string("the start") : "tensor " + escaped(tensors[i - 1].name);
      const bool shared = i > 0 && tensors[i - 1].begin == t.begin && tensors[i - 1].end == t.end;
      refuse(std::min(end, t.begin), "tensor " + escaped(t.name),
             t.begin > end
                 ? "a hole of " + std::to_string(t.begin - end) + " bytes after " + last
                 : "an overlap of " + std::to_string(end - t.begin) + " bytes with " + last,
             "data without holes and overlaps", shared ? "Store tied weights once" : "");
    }
    end = t.end;
  }
  if (end != data_size) {
    refuse(end, "", std::to_string(data_size - end) + " bytes after the last tensor",
           "the end of the file", "Get the file again: something was appended to it");
  }
}

/// "found" for a file whose start makes no sense: what it really is.
template <ByteSource S>
[[noreturn]] void fail_safetensors_start(const S& source, ErrorClass kind, std::string found,
                                         std::string expected, std::string fix) {
  const FileKind really = file_kind(source);
  const bool known = really != FileKind::unknown && really != FileKind::safetensors;
  fail({.kind = known ? ErrorClass::format : kind,
        .file = source.name(),
        .where = "byte 0",
        .found = known ? std::string(file_kind_text(really)) : std::move(found),
        .expected = known ? std::string("a safetensors file") : std::move(expected),
        .fix = known ? std::string(file_kind_advice(really)) : std::move(fix)});
}

}  // namespace detail

/// Reads and validates the header against the size of the file; reads no tensor.
/// White space around the header's JSON is accepted, as the reference reader does.
/// \throws Error(format) or Error(limit) with byte offset or JSON pointer.
/// **Cost:** linear in the header (n log n in the tensors).
template <ByteSource S>
SafetensorsIndex read_safetensors_index(const S& source, const SafetensorsLimits& limits = {}) {
  if (source.size() < 8) {
    detail::fail_safetensors_start(
        source, ErrorClass::format, std::to_string(source.size()) + " bytes",
        "at least 8 bytes: the length of the header", "Get the file again: it is truncated");
  }
  const auto length = read_value<std::uint64_t>(source, 0);
  if (length > limits.max_header) {
    const bool swapped = __builtin_bswap64(length) <= source.size() - 8;
    detail::fail_safetensors_start(
        source, ErrorClass::limit, "a header of " + std::to_string(length) + " bytes",
        "at most " + std::to_string(limits.max_header),
        swapped ? "Store the header's length little-endian: it looks big-endian"
                : "Check that this is a safetensors file");
  }
  if (length == 0 || length > source.size() - 8) {
    detail::fail_safetensors_start(source, ErrorClass::format,
                                   "a header of " + std::to_string(length) +
                                       " bytes in a file of " + std::to_string(source.size()),
                                   length == 0 ? "a header" : "a header that ends within the file",
                                   length == 0 ? "" : "Get the file again: it is truncated");
  }
  SafetensorsIndex out;
  out.file = source.name();
  out.data_offset = 8 + length;
  {
    const std::string header = read_text(source, 8, static_cast<std::size_t>(length));
    detail::SafetensorsHeaderReader reader(out, limits);
    // Names and metadata are limited by the header itself.
    const JsonLimits json{.max_bytes = limits.max_header,
                          .max_string = static_cast<std::size_t>(limits.max_header)};
    parse_json_events(header, source.name(), json, reader, 8);
  }
  detail::check_safetensors_coverage(out, source.size() - out.data_offset);
  out.by_name.resize(out.tensors.size());
  for (std::size_t i = 0; i < out.by_name.size(); ++i) out.by_name[i] = i;
  std::sort(out.by_name.begin(), out.by_name.end(), [&out](std::size_t a, std::size_t b) {
    return out.tensors[a].name < out.tensors[b].name;
  });
  return out;
}

/// The storage type of a tensor that can become float, or nullopt for integers, F8, complex, ...
inline std::optional<DType> float_dtype(const SafetensorsTensor& tensor) {
  const std::string_view name = tensor.dtype_name();
  if (name == "F32") return DType::f32;
  if (name == "BF16") return DType::bf16;
  if (name == "F16") return DType::f16;
  if (name == "F64") return DType::f64;
  return std::nullopt;
}

/// Reads elements [first, first + out.size()) of a tensor as float: exact from F32, BF16, F16;
/// rounded from F64. Data need not be aligned.
/// \throws Error(unsupported) for other dtypes; Error(usage) beyond the tensor; as S::read.
template <ByteSource S>
void read_floats(const S& source, const SafetensorsIndex& index, const SafetensorsTensor& tensor,
                 std::uint64_t first, std::span<float> out) {
  const std::optional<DType> dtype = float_dtype(tensor);
  if (!dtype) {
    fail({.kind = ErrorClass::unsupported,
          .file = index.file,
          .field = "tensor " + escaped(tensor.name),
          .found = "dtype " + std::string(tensor.dtype_name()),
          .expected = "F32, BF16, F16 or F64",
          .fix = "Convert the tensor to one of these"});
  }
  require(first <= tensor.elements && out.size() <= tensor.elements - first,
          "a range within the tensor");
  const std::size_t width = size_of(*dtype);
  std::uint64_t at = index.data_offset + tensor.begin + first * width;
  if (*dtype == DType::f32) {
    source.read(at, std::as_writable_bytes(out));
    return;
  }
  std::array<std::byte, 8192> raw;
  while (!out.empty()) {
    const std::size_t n = std::min(out.size(), raw.size() / width);
    source.read(at, std::span(raw).first(n * width));
    for (std::size_t i = 0; i < n; ++i) {
      if (*dtype == DType::f64) {
        double v = 0;
        std::memcpy(&v, raw.data() + i * 8, 8);
        out[i] = to_float(v);
      } else {
        std::uint16_t bits = 0;
        std::memcpy(&bits, raw.data() + i * 2, 2);
        out[i] = *dtype == DType::bf16 ? to_float(bf16{bits}) : to_float(f16{bits});
      }
    }
    at += n * width;
    out = out.subspan(n);
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
