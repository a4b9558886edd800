// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Files of token ids (`.u16`, `.u32`, flat, little-endian), and windows cut from ids.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/text/tokenizer.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Ids of a file and the hash of its bytes.
struct TokenFile {
  std::vector<TokenId> ids = {};
  std::uint64_t hash = 0;
};

/// Reads ids of 2 or 4 bytes. \throws Error(format) when the size is no multiple of that, or for an
/// id not below vocab_size, with its index and byte offset.
template <ByteSource S>
TokenFile read_token_ids(const S& source, std::size_t id_size, index_t vocab_size) {
  require(id_size == 2 || id_size == 4, "id_size 2 or 4");
  const std::uint64_t rest = source.size() % id_size;
  if (rest != 0) {
    fail({.kind = ErrorClass::format,
          .file = source.name(),
          .where = "byte " + std::to_string(source.size() - rest),
          .found = std::to_string(source.size()) + " bytes",
          .expected = "a multiple of " + std::to_string(id_size),
          .fix = "Get the file again, or check whether its ids have another size"});
  }
  TokenFile out;
  out.ids.reserve(static_cast<std::size_t>(source.size() / id_size));
  Hasher hash;
  for_each_chunk(source, [&](std::span<const std::byte> bytes) {
    hash.bytes(bytes);
    for (std::size_t i = 0; i < bytes.size(); i += id_size) {
      std::uint32_t id = 0;  // little-endian host, as everywhere
      std::memcpy(&id, bytes.data() + i, id_size);
      if (id >= static_cast<std::uint64_t>(vocab_size)) {
        fail({.kind = ErrorClass::format,
              .file = source.name(),
              .where = "byte " + std::to_string(out.ids.size() * id_size),
              .field = "id " + std::to_string(out.ids.size()),
              .found = std::to_string(id),
              .expected = "an id below vocab_size = " + std::to_string(vocab_size),
              .fix = "Give ids made with the model's own tokenizer"});
      }
      out.ids.push_back(static_cast<TokenId>(id));
    }
  });
  out.hash = hash.digest();
  return out;
}

/// Opens a file whose name ends in .u16 or .u32. \throws Error(usage) for other names; as
/// read_token_ids.
inline TokenFile read_token_file(const std::string& path, index_t vocab_size) {
  const bool wide = path.ends_with(".u32");
  if (!wide && !path.ends_with(".u16")) {
    fail({.kind = ErrorClass::usage,
          .file = path,
          .found = "a name with another ending",
          .expected = "ids in a .u16 or .u32 file"});
  }
  const FileSource source(path);
  TokenFile out = read_token_ids(source, wide ? 4 : 2, vocab_size);
  source.check_unchanged();
  return out;
}

/// Runs of `window` ids in order; what is left at the end is not used. At most `max_windows`, all
/// if 0. \throws Error(usage) when not one window fits, with the number of tokens.
inline std::vector<std::span<const TokenId>> cut_windows(std::span<const TokenId> ids,
                                                         index_t window, index_t max_windows = 0) {
  require(window >= 2, "a window of at least 2 tokens: one to read and one to predict");
  require(max_windows >= 0, "max_windows >= 0");
  const auto size = static_cast<std::size_t>(window);
  std::size_t count = ids.size() / size;
  if (count == 0) {
    fail({.kind = ErrorClass::usage,
          .field = "window",
          .found = std::to_string(ids.size()) + " tokens",
          .expected = "at least one window of " + std::to_string(window),
          .fix = "Give a longer text or shorter lengths"});
  }
  if (max_windows > 0) count = std::min(count, static_cast<std::size_t>(max_windows));
  std::vector<std::span<const TokenId>> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(ids.subspan(i * size, size));
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
