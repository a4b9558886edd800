// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Where a JSON parser is: the pointer to the current value, and the keys of the open objects.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/error.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// A JSON pointer (RFC 6901) that grows and shrinks with the parser.
class JsonPath {
 public:
  void enter_object() { enter(false); }
  void enter_array() { enter(true); }
  void leave() { --depth_; }
  void set_key(std::string_view key) { steps_[depth_ - 1].key.assign(key); }
  void next_element() {
    if (depth_ > 0 && steps_[depth_ - 1].is_array) ++steps_[depth_ - 1].index;
  }
  std::size_t depth() const { return depth_; }
  /// "/" + steps; "" is the whole text.
  std::string pointer() const {
    std::string out;
    for (std::size_t i = 0; i < depth_; ++i) {
      const Step& s = steps_[i];
      if (s.is_array) {
        if (s.index >= 0) out += "/" + std::to_string(s.index);
        continue;
      }
      out += '/';
      append_pointer_step(out, s.key);
    }
    return out;
  }
  static void append_pointer_step(std::string& out, std::string_view key) {
    constexpr std::size_t limit = 120;
    const std::string shown = escaped(key.substr(0, limit));
    for (const char c : std::string_view(shown).substr(1, shown.size() - 2)) {
      if (c == '~') {
        out += "~0";
      } else if (c == '/') {
        out += "~1";
      } else {
        out += c;
      }
    }
  }

 private:
  struct Step {
    bool is_array = false;
    std::int64_t index = -1;
    std::string key = {};
  };
  void enter(bool is_array) {
    if (depth_ == steps_.size()) steps_.emplace_back();
    Step& s = steps_[depth_++];
    s.is_array = is_array;
    s.index = -1;
    s.key.clear();
  }
  std::vector<Step> steps_;  // the first depth_ are in use, the rest is kept for reuse
  std::size_t depth_ = 0;
};

namespace detail {

/// Keys of one object by their hashes: eight bytes a key, whatever their length. Two keys of equal
/// hash would be taken for duplicates; by chance that does not happen.
class KeySet {
 public:
  void clear() {
    count_ = 0;
    if (slots_.size() > few) {
      slots_.assign(few, 0);
    } else {
      slots_.resize(few);
    }
  }
  /// False when the key is there already.
  bool insert(std::uint64_t hash) {
    hash |= 1;  // 0 marks a free slot
    if (count_ < few && slots_.size() == few) {
      if (std::find(slots_.begin(), slots_.begin() + static_cast<std::ptrdiff_t>(count_), hash) !=
          slots_.begin() + static_cast<std::ptrdiff_t>(count_)) {
        return false;
      }
      slots_[count_++] = hash;
      return true;
    }
    if (2 * (count_ + 1) > slots_.size() || slots_.size() == few) grow();
    return place(hash);
  }

 private:
  static constexpr std::size_t few = 16;  // searched one by one

  bool place(std::uint64_t hash) {
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t i = (hash >> 8) & mask;; i = (i + 1) & mask) {
      if (slots_[i] == hash) return false;
      if (slots_[i] != 0) continue;
      slots_[i] = hash;
      ++count_;
      return true;
    }
  }
  void grow() {
    std::vector<std::uint64_t> old(slots_.size() * 4, 0);
    old.swap(slots_);
    const std::size_t used = old.size() == few ? count_ : old.size();
    count_ = 0;
    for (std::size_t i = 0; i < used; ++i) {
      if (old[i] != 0) place(old[i]);
    }
  }
  std::vector<std::uint64_t> slots_;
  std::size_t count_ = 0;
};

}  // namespace detail

}  // namespace ropewalk::inline ROPEWALK_ABI
