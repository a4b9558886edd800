// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// A text that was changed on its way to the model, with the place of every byte in the original.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/config.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Part of a text, original or changed. `origin_at(i)`: bytes of the original before byte i.
struct TextView {
  std::string_view text = {};
  const std::uint32_t* origin = nullptr;  ///< text.size() + 1 of them; null: the original itself
  std::size_t base = 0;                   ///< without `origin`: where the text starts

  std::size_t origin_at(std::size_t i) const { return origin == nullptr ? base + i : origin[i]; }
  TextView sub(std::size_t begin, std::size_t end) const {
    return {text.substr(begin, end - begin), origin == nullptr ? nullptr : origin + begin,
            base + begin};
  }
};

/// Owns a changed text. Built by keep() and put(), then closed by finish().
class AlignedText {
 public:
  void clear() {
    text_.clear();
    origin_.clear();
  }
  /// Bytes [begin, end) of `from` as they are.
  void keep(const TextView& from, std::size_t begin, std::size_t end) {
    text_.append(from.text.substr(begin, end - begin));
    const std::size_t size = origin_.size();
    origin_.resize(size + end - begin);
    std::uint32_t* out = origin_.data() + size;
    if (from.origin != nullptr) {
      std::copy(from.origin + begin, from.origin + end, out);
    } else {
      std::iota(out, out + (end - begin), static_cast<std::uint32_t>(from.base + begin));
    }
  }
  /// New bytes that stand where the original's byte `origin` is.
  void put(std::string_view bytes, std::size_t origin) {
    text_.append(bytes);
    origin_.resize(origin_.size() + bytes.size(), static_cast<std::uint32_t>(origin));
  }
  void finish(std::size_t origin_end) { origin_.push_back(static_cast<std::uint32_t>(origin_end)); }
  TextView view() const { return {text_, origin_.data(), 0}; }

 private:
  std::string text_;
  std::vector<std::uint32_t> origin_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
