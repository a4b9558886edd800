// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Hash tables of byte-pair encoding: which pairs merge into what, which characters may meet
/// inside of a piece, which words are pieces.

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

constexpr std::uint64_t mixed_bits(std::uint64_t x) {  // MurmurHash3's finaliser
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u;
  return x ^ (x >> 33);
}

/// Smallest power of two that leaves half of the slots free.
constexpr std::size_t table_slots(std::size_t count) {
  std::size_t slots = 16;
  while (slots < 2 * count) slots *= 2;
  return slots;
}

/// Fast for short strings.
inline std::uint32_t short_hash(std::string_view word) {
  if (word.size() > 16) return static_cast<std::uint32_t>(XXH64(word.data(), word.size(), 0));
  std::uint64_t ends[2] = {0, 0};
  if (word.size() > 8) {
    __builtin_memcpy(&ends[0], word.data(), 8);
    __builtin_memcpy(&ends[1], word.data() + word.size() - 8, 8);
  } else if (word.size() >= 4) {
    __builtin_memcpy(&ends[0], word.data(), 4);
    __builtin_memcpy(&ends[1], word.data() + word.size() - 4, 4);
  } else {
    for (const char c : word) ends[0] = ends[0] << 8 | static_cast<unsigned char>(c);
  }
  return static_cast<std::uint32_t>(mixed_bits(ends[0] * 0x9e3779b97f4a7c15u +
                                               ends[1] * 0xd6e8feb86659fd93u +
                                               word.size() * 0xa0761d6478bd642fu));
}

}  // namespace detail

/// Two adjacent tokens become one; the lowest rank goes first.
struct BpeMerge {
  TokenId left = 0;
  TokenId right = 0;
  TokenId result = 0;
  std::uint32_t rank = 0;
};

/// Merges by their pairs.
class PairTable {
 public:
  static constexpr std::uint32_t none = 0xffffffffu;
  struct Found {
    std::uint32_t rank = none;
    TokenId result = -1;
  };

  explicit PairTable(std::size_t count = 0) : slots_(detail::table_slots(count)) {}
  /// False when the pair is there already. At most as many as the constructor was told.
  bool add(const BpeMerge& m) {
    Slot& s = slots_[place(key(m.left, m.right))];
    if (s.key != empty) return false;
    s = {key(m.left, m.right), {m.rank, m.result}};
    return true;
  }
  Found find(TokenId left, TokenId right) const {
    return slots_[place(key(left, right))].found;  // a free slot holds "none"
  }

 private:
  static constexpr std::uint64_t empty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = empty;
    Found found = {};
  };
  static std::uint64_t key(TokenId left, TokenId right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 |
           static_cast<std::uint32_t>(right);
  }
  std::size_t place(std::uint64_t k) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = static_cast<std::size_t>(detail::mixed_bits(k)) & mask;
    while (slots_[i].key != empty && slots_[i].key != k) i = (i + 1) & mask;
    return i;
  }
  std::vector<Slot> slots_;
};

/// A map from 64-bit keys to numbers that are not negative; any key but 2^64 - 1.
class NumberTable {
 public:
  /// Sets the value unless the key is there; false if it is.
  bool add(std::uint64_t key, std::int32_t value) {
    if (2 * (count_ + 1) > slots_.size()) grow();
    Slot& s = slots_[place(key)];
    if (s.key != empty) return false;
    s = {key, value};
    ++count_;
    return true;
  }
  /// -1 when it is not there.
  std::int32_t find(std::uint64_t key) const { return slots_[place(key)].value; }

 private:
  static constexpr std::uint64_t empty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = empty;
    std::int32_t value = -1;
  };
  std::size_t place(std::uint64_t k) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = static_cast<std::size_t>(detail::mixed_bits(k)) & mask;
    while (slots_[i].key != empty && slots_[i].key != k) i = (i + 1) & mask;
    return i;
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 4);
    old.swap(slots_);
    for (const Slot& s : old) {
      if (s.key != empty) slots_[place(s.key)] = s;
    }
  }
  std::vector<Slot> slots_ = std::vector<Slot>(16);
  std::size_t count_ = 0;
};

/// Pairs of characters that some merge joins. Between two others a text can be cut without changing
/// its tokens: no merge ever crosses.
class JoinedCharacters {
 public:
  void add(std::uint32_t left, std::uint32_t right) {
    if (left < 128 && right < 128) ascii_.set(left * 128 + right);
    others_.add(std::uint64_t{left} << 32 | right, 1);
  }
  bool contains(std::uint32_t left, std::uint32_t right) const {
    if (left < 128 && right < 128) return ascii_.test(left * 128 + right);
    return others_.find(std::uint64_t{left} << 32 | right) >= 0;
  }

 private:
  std::bitset<128 * 128> ascii_;
  NumberTable others_;
};

/// Ids by the strings they stand for. The strings stay with the caller.
class WordTable {
 public:
  explicit WordTable(std::size_t count = 0) : slots_(detail::table_slots(count)) {}
  /// False when another id has this string. `words[id]` is the string of an id.
  bool add(TokenId id, const std::vector<std::string>& words) {
    const std::string_view word = words[static_cast<std::size_t>(id)];
    Slot& s = slots_[place(word, words)];
    if (s.id >= 0) return false;
    s = {detail::short_hash(word), id};
    return true;
  }
  /// -1 when there is none.
  TokenId find(std::string_view word, const std::vector<std::string>& words) const {
    return slots_[place(word, words)].id;
  }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    TokenId id = -1;
  };
  std::size_t place(std::string_view word, const std::vector<std::string>& words) const {
    const std::uint32_t h = detail::short_hash(word);
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = h & mask;
    while (slots_[i].id >= 0 &&
           (slots_[i].hash != h || words[static_cast<std::size_t>(slots_[i].id)] != word)) {
      i = (i + 1) & mask;
    }
    return i;
  }
  std::vector<Slot> slots_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
