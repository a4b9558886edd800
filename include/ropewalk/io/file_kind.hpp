// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Tells what a file really is from its first bytes, so that an error can say it.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ropewalk/io/byte_source.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Kinds of files that are found where weights are expected.
enum class FileKind {
  unknown,
  empty,
  git_lfs_pointer,
  html,
  json,
  gguf,
  gzip,
  zip,
  pickle,
  safetensors,
  numpy,
  llama2c_versioned,  ///< llama2.c export versions 1 and 2 ("ak42")
};

/// The kind of a file of `size` bytes that begins with `head` (64 bytes are enough).
constexpr FileKind file_kind(std::string_view head, std::uint64_t size) {
  if (size == 0) return FileKind::empty;
  const auto begins = [head](std::string_view magic) {
    return head.substr(0, magic.size()) == magic;
  };
  if (begins("version https://git-lfs")) return FileKind::git_lfs_pointer;
  if (begins("GGUF") || begins("lmgg") || begins("tjgg")) return FileKind::gguf;
  if (begins("PK\x03\x04")) return FileKind::zip;
  if (begins("\x1f\x8b\x08")) return FileKind::gzip;
  if (begins("\x93NUMPY")) return FileKind::numpy;
  if (begins("24ka")) return FileKind::llama2c_versioned;
  // A length of at most 100 MB in 8 bytes, then JSON.
  if (head.size() >= 10 && head.substr(4, 4) == std::string_view("\0\0\0\0", 4) && head[8] == '{' &&
      (head[9] == '"' || head[9] == '}' || head[9] == ' ')) {
    return FileKind::safetensors;
  }
  // The third byte keeps a llama2.c header of dim 640 (80 02 00 00) from looking like a pickle.
  if (head.size() >= 3 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5 &&
      (head[2] > ' ' || head[2] < 0)) {
    return FileKind::pickle;
  }
  const std::size_t start = head.find_first_not_of(" \t\r\n");
  if (start != std::string_view::npos) {
    const std::string_view text = head.substr(start);
    if (text[0] == '<' && text.size() > 1 &&
        (text[1] == '!' || text[1] == '?' || text.substr(1, 4) == "html" ||
         text.substr(1, 4) == "HTML")) {
      return FileKind::html;
    }
    if (text[0] == '{' && text.size() > 1 &&
        (text[1] == '"' || text[1] == '}' || text[1] == ' ' || text[1] == '\n')) {
      return FileKind::json;
    }
  }
  return FileKind::unknown;
}

template <ByteSource S>
FileKind file_kind(const S& source) {
  std::array<char, 64> head{};
  const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(source.size(), head.size()));
  source.read(0, std::as_writable_bytes(std::span(head.data(), n)));
  return file_kind(std::string_view(head.data(), n), source.size());
}

/// For messages: "found ...". Empty for unknown.
constexpr std::string_view file_kind_text(FileKind kind) {
  switch (kind) {
    case FileKind::unknown:
      return "";
    case FileKind::empty:
      return "an empty file";
    case FileKind::git_lfs_pointer:
      return "a git-lfs pointer, not the file it points to";
    case FileKind::html:
      return "an HTML page";
    case FileKind::json:
      return "a JSON text";
    case FileKind::gguf:
      return "a GGUF file";
    case FileKind::gzip:
      return "a gzip archive";
    case FileKind::zip:
      return "a zip archive (PyTorch checkpoints are such)";
    case FileKind::pickle:
      return "a Python pickle";
    case FileKind::safetensors:
      return "a safetensors file";
    case FileKind::numpy:
      return "a NumPy file";
    case FileKind::llama2c_versioned:
      return "a llama2.c file of export version 1 or 2";
  }
  return "";
}

/// What to do about it: one sentence.
constexpr std::string_view file_kind_advice(FileKind kind) {
  switch (kind) {
    case FileKind::empty:
      return "Get the file again: the download or copy is empty";
    case FileKind::git_lfs_pointer:
      return "Run `git lfs pull` in the repository it comes from";
    case FileKind::html:
      return "Download the file itself rather than the web page about it";
    case FileKind::json:
      return "Download the file itself: this may be a server's error message";
    case FileKind::gguf:
      return "Use the model's Hugging Face folder with safetensors: GGUF is not supported yet";
    case FileKind::gzip:
    case FileKind::zip:
      return "Unpack it, or save the model as safetensors";
    case FileKind::pickle:
      return "Save the model as safetensors: pickles are never read";
    case FileKind::safetensors:
      return "Name the folder that holds it and its config.json";
    case FileKind::llama2c_versioned:
      return "Export it with version 0 (float32)";
    case FileKind::numpy:
    case FileKind::unknown:
      return "";
  }
  return "";
}

/// Fails if the source is recognisably something else than what its caller reads.
/// \throws Error(format), or Error(unsupported) for the other llama2.c versions.
template <ByteSource S>
void refuse_other_kinds(const S& source, FileKind wanted, std::string_view expected) {
  const FileKind kind = file_kind(source);
  if (kind == wanted || kind == FileKind::unknown) return;
  fail({.kind = kind == FileKind::llama2c_versioned ? ErrorClass::unsupported : ErrorClass::format,
        .file = source.name(),
        .where = "byte 0",
        .found = std::string(file_kind_text(kind)),
        .expected = std::string(expected),
        .fix = std::string(file_kind_advice(kind))});
}

}  // namespace ropewalk::inline ROPEWALK_ABI
