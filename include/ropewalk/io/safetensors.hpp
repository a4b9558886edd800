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
#include "ropewalk/io/safetensors_header.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

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
/// **Cost:** linear in the header; n log n in the tensors if names and data differ in order.
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
  out.build_table();
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
