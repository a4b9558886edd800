// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Reads the wire format of protocol buffers.

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "ropewalk/core/error.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The fields of one message, in the order in which they are stored. Messages in messages are read
/// by readers of their own; nothing recurses here.
/// Source: protobuf.dev/programming-guides/encoding
class ProtobufReader {
 public:
  enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  struct Field {
    std::uint64_t number = 0;
    Wire wire = Wire::varint;
    std::uint64_t value = 0;      ///< of varints and fixed numbers
    std::string_view bytes = {};  ///< of strings and messages
    std::size_t offset = 0;       ///< of `bytes` in the file
  };

  /// `base` is where the message lies in `file`, for messages of errors.
  ProtobufReader(std::string_view message, std::string file, std::size_t base = 0)
      : data_(message), file_(std::move(file)), base_(base) {}

  bool done() const { return at_ == data_.size(); }
  /// \throws Error(format) with the byte offset
  Field next() {
    const std::size_t start = at_;
    const std::uint64_t tag = varint();
    Field out{.number = tag >> 3, .wire = static_cast<Wire>(tag & 7)};
    if (out.number == 0 || out.number >= (1u << 29)) {
      refuse(start, "the field number " + std::to_string(out.number), "1 to 536870911");
    }
    switch (tag & 7) {
      case 0:
        out.value = varint();
        break;
      case 1:
        out.value = fixed(8);
        break;
      case 2: {
        const std::size_t at = at_;
        const std::uint64_t size = varint();
        if (size > data_.size() - at_) {
          refuse(at, "a length of " + std::to_string(size) + " bytes",
                 "at most the " + std::to_string(data_.size() - at_) + " that follow");
        }
        out.offset = base_ + at_;
        out.bytes = data_.substr(at_, static_cast<std::size_t>(size));
        at_ += static_cast<std::size_t>(size);
        break;
      }
      case 5:
        out.value = fixed(4);
        break;
      default:
        refuse(start, "the wire type " + std::to_string(tag & 7), "0, 1, 2 or 5");
    }
    return out;
  }
  /// The bytes of a field, a number, a float. \throws Error(format) when its wire type is another.
  std::string_view bytes_of(const Field& f) const {
    check(f, Wire::bytes, "bytes");
    return f.bytes;
  }
  std::uint64_t number_of(const Field& f) const {
    check(f, Wire::varint, "an integer");
    return f.value;
  }
  float float_of(const Field& f) const {
    check(f, Wire::fixed32, "a float");
    return std::bit_cast<float>(static_cast<std::uint32_t>(f.value));
  }
  ProtobufReader message_of(const Field& f) const {
    return ProtobufReader(bytes_of(f), file_, f.offset);
  }
  const std::string& file() const { return file_; }
  std::size_t offset() const { return base_ + at_; }

 private:
  [[noreturn]] void refuse(std::size_t at, std::string found, std::string expected) const {
    fail({.kind = ErrorClass::format,
          .file = file_,
          .where = "byte " + std::to_string(base_ + at),
          .found = std::move(found),
          .expected = std::move(expected),
          .fix = "Get the file again: it is damaged, or no protocol buffer"});
  }
  void check(const Field& f, Wire wanted, const char* what) const {
    if (f.wire == wanted) return;
    refuse(at_, "field " + std::to_string(f.number) + " of another type", what);
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    const std::size_t start = at_;
    for (unsigned shift = 0; at_ < data_.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(data_[at_++]);
      if (shift == 63 && byte > 1) refuse(start, "a number beyond 64 bits", "at most 10 bytes");
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    refuse(start, "the end of the message", "a number");
  }
  std::uint64_t fixed(std::size_t size) {
    if (size > data_.size() - at_) {
      refuse(at_, "the end of the message", "a number of " + std::to_string(size) + " bytes");
    }
    std::uint64_t value = 0;
    std::memcpy(&value, data_.data() + at_, size);
    at_ += size;
    return value;
  }

  std::string_view data_;
  std::string file_;
  std::size_t base_;
  std::size_t at_ = 0;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
