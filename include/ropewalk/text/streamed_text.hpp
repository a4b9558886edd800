// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// StreamedText: text that comes in pieces, given out as soon as nothing can change it any more.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/core/error.hpp"
#include "ropewalk/io/utf8.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Bytes at the end of `text` that may be the start of one UTF-8 character whose rest is to come.
inline std::size_t incomplete_utf8_tail(std::string_view text) {
  for (std::size_t size = 1; size <= std::min<std::size_t>(3, text.size()); ++size) {
    const std::string_view tail = text.substr(text.size() - size);
    if ((static_cast<unsigned char>(tail[0]) & 0xc0u) == 0x80u) continue;
    // Whether some continuation makes it whole: the second byte decides, the others are free.
    std::string whole(tail);
    for (const char second : {'\x80', '\x90', '\xa0'}) {
      std::string tried = whole;
      if (tried.size() == 1) tried += second;
      while (tried.size() < 4) tried += '\x80';
      if (utf8_length(tried, 0) > size) return size;
    }
    return 0;
  }
  return 0;
}

/// Holds back what may still become a stop string, or a character whose bytes are not all there.
/// Everything else is given out at once; bytes that are no UTF-8 are given out as they are.
class StreamedText {
 public:
  StreamedText() = default;
  /// \throws Error(usage) for an empty stop string.
  explicit StreamedText(std::vector<std::string> stops) : stops_(std::move(stops)) {
    for (const std::string& stop : stops_) {
      if (stop.empty()) {
        fail({.kind = ErrorClass::usage,
              .field = "stop",
              .found = "an empty string",
              .expected = "at least one byte"});
      }
    }
  }

  /// Adds a piece, and gives the text that is now settled. Of several stop strings the one that
  /// starts first ends the text, just before its start; what comes after it is dropped.
  std::string push(std::string_view piece) {
    if (stopped_) return {};
    held_ += piece;
    std::size_t end = std::string::npos;
    for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
    if (end != std::string::npos) {
      stopped_ = true;
      held_.resize(end);
      return std::exchange(held_, {});
    }
    std::size_t keep = incomplete_utf8_tail(held_);
    for (const std::string& stop : stops_) keep = std::max(keep, partial_match(stop));
    return take(held_.size() - keep);
  }
  /// What is still held back, when no more comes: it turned out to be plain text.
  std::string finish() { return take(held_.size()); }
  /// Whether a stop string has come.
  bool stopped() const { return stopped_; }

 private:
  /// Longest end of the held text with which `stop` begins.
  std::size_t partial_match(std::string_view stop) const {
    const std::string_view text = held_;
    for (std::size_t size = std::min(stop.size() - 1, text.size()); size > 0; --size) {
      if (text.substr(text.size() - size) == stop.substr(0, size)) return size;
    }
    return 0;
  }
  std::string take(std::size_t size) {
    std::string out = held_.substr(0, size);
    held_.erase(0, size);
    return out;
  }

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
