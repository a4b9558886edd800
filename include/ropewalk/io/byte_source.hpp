// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// ByteSource: bytes of a file or of memory, read into spans that the caller owns.

#include <algorithm>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ropewalk/core/checked.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/hash.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Bytes with random access. `read(offset, out)` fills `out` whole or throws; `name()` is the file
/// name as the user gave it. Never memory-mapped: a file that shrinks while it is mapped kills the
/// process, or reads as zeros.
template <class S>
concept ByteSource = requires(const S& s, std::uint64_t offset, std::span<std::byte> out) {
  { s.size() } -> std::same_as<std::uint64_t>;
  { s.read(offset, out) } -> std::same_as<void>;
  { s.name() } -> std::convertible_to<const std::string&>;
};

/// The operating system's text for an errno value.
inline std::string os_error_text(int error) { return std::generic_category().message(error); }

/// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const noexcept { return fd_; }

 private:
  int fd_ = -1;
};

namespace detail {

inline const char* file_type_text(mode_t mode) {
  if (S_ISREG(mode)) return "a regular file";
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode)) return "a character device";
  if (S_ISBLK(mode)) return "a block device";
  return "not a file";
}

/// Checks that [offset, offset + length) lies in a source of `size` bytes.
inline void check_extent(std::uint64_t offset, std::size_t length, std::uint64_t size,
                         const std::string& name) {
  if (offset <= size && length <= size - offset) return;
  fail({.kind = ErrorClass::format,
        .file = name,
        .where = "byte " + std::to_string(offset),
        .found = "a size of " + std::to_string(size) + " bytes",
        .expected = "at least " + std::to_string(length) + " bytes from there",
        .fix = "Get the file again: it is truncated"});
}

}  // namespace detail

/// True for anything that can be looked up under this path.
inline bool file_exists(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0;
}

/// True for an existing folder (a link to one included).
inline bool is_directory(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

/// A regular file, read by pread. The size is that at opening.
class FileSource {
 public:
  /// \throws Error(io) when `path` cannot be opened or is not a regular file. Never blocks.
  explicit FileSource(std::string path) : name_(std::move(path)) {
    if (name_.find('\0') != std::string::npos) {
      fail({.kind = ErrorClass::path,
            .file = escaped(name_),
            .found = "a NUL byte in the file name",
            .expected = "a file name"});
    }
    fd_ = FileDescriptor(::open(name_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (fd_.get() < 0) {
      const int error = errno;
      fail({.kind = error == EMFILE || error == ENFILE ? ErrorClass::resource : ErrorClass::io,
            .file = name_,
            .found = os_error_text(error),
            .expected = "a readable file",
            .fix = error == ENOENT ? "Check the path" : ""});
    }
    const struct stat s = status();
    if (!S_ISREG(s.st_mode)) {
      fail({.kind = ErrorClass::io,
            .file = name_,
            .found = detail::file_type_text(s.st_mode),
            .expected = "a regular file"});
    }
    size_ = static_cast<std::uint64_t>(s.st_size);
    modified_ = s.st_mtim;
  }
  std::uint64_t size() const { return size_; }
  const std::string& name() const { return name_; }

  /// Fills `out` with the bytes from `offset` on.
  /// \throws Error(format) when they lie beyond the end, Error(io) when the file shrank meanwhile
  /// or the read fails.
  void read(std::uint64_t offset, std::span<std::byte> out) const {
    detail::check_extent(offset, out.size(), size_, name_);
    std::size_t done = 0;
    while (done < out.size()) {
      const std::size_t wanted = std::min<std::size_t>(out.size() - done, std::size_t{1} << 30);
      const ssize_t n =
          ::pread(fd_.get(), out.data() + done, wanted, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        fail({.kind = ErrorClass::io,
              .file = name_,
              .where = "byte " + std::to_string(offset + done),
              .found = n < 0 ? os_error_text(errno) : "the end of the file",
              .expected =
                  std::to_string(out.size() - done) + " more bytes of " + std::to_string(size_),
              .fix = n < 0 ? "" : "Let no other program write to the file: it shrank"});
      }
      done += static_cast<std::size_t>(n);
    }
  }

  /// \throws Error(io) when size or modification time are no longer those at opening.
  void check_unchanged() const {
    const struct stat s = status();
    const auto size = static_cast<std::uint64_t>(s.st_size);
    if (size == size_ && s.st_mtim.tv_sec == modified_.tv_sec &&
        s.st_mtim.tv_nsec == modified_.tv_nsec) {
      return;
    }
    fail({.kind = ErrorClass::io,
          .file = name_,
          .found = size == size_ ? std::string("another modification time than at opening")
                                 : std::to_string(size) + " bytes",
          .expected = "an unchanged file of " + std::to_string(size_) + " bytes",
          .fix = "Let no other program write to the file while it is read"});
  }

 private:
  struct stat status() const {
    struct stat s {};
    if (::fstat(fd_.get(), &s) != 0) {
      fail({.kind = ErrorClass::io, .file = name_, .found = os_error_text(errno)});
    }
    return s;
  }
  std::string name_;
  FileDescriptor fd_;
  std::uint64_t size_ = 0;
  struct timespec modified_ {};
};

/// Bytes in memory that the caller keeps alive.
class MemorySource {
 public:
  explicit MemorySource(std::span<const std::byte> data, std::string name = "memory")
      : data_(data), name_(std::move(name)) {}
  explicit MemorySource(std::string_view text, std::string name = "memory")
      : MemorySource(std::as_bytes(std::span(text.data(), text.size())), std::move(name)) {}
  std::uint64_t size() const { return data_.size(); }
  const std::string& name() const { return name_; }
  void read(std::uint64_t offset, std::span<std::byte> out) const {
    detail::check_extent(offset, out.size(), data_.size(), name_);
    if (!out.empty()) std::memcpy(out.data(), data_.data() + offset, out.size());
  }

 private:
  std::span<const std::byte> data_;
  std::string name_;
};

static_assert(ByteSource<FileSource>);
static_assert(ByteSource<MemorySource>);

/// Calls visit(bytes) for consecutive pieces of at most 1 MiB.
template <ByteSource S, class Visitor>
void for_each_chunk(const S& source, Visitor&& visit) {
  std::vector<std::byte> buffer(
      static_cast<std::size_t>(std::min<std::uint64_t>(source.size(), std::uint64_t{1} << 20)));
  for (std::uint64_t at = 0; at < source.size();) {
    const auto n =
        static_cast<std::size_t>(std::min<std::uint64_t>(source.size() - at, buffer.size()));
    source.read(at, {buffer.data(), n});
    visit(std::span<const std::byte>(buffer.data(), n));
    at += n;
  }
}

/// Hash of all bytes of a source, equal to content_hash of the same bytes in memory.
template <ByteSource S>
std::uint64_t content_hash(const S& source) {
  Hasher hash;
  for_each_chunk(source, [&hash](std::span<const std::byte> bytes) { hash.bytes(bytes); });
  return hash.digest();
}

/// Bytes [offset, offset + length) as text.
template <ByteSource S>
std::string read_text(const S& source, std::uint64_t offset, std::size_t length) {
  detail::check_extent(offset, length, source.size(), source.name());
  std::string text(length, '\0');
  source.read(offset, std::as_writable_bytes(std::span(text.data(), text.size())));
  return text;
}

/// The whole source as text. \throws Error(limit) when it is longer than `limit` bytes.
template <ByteSource S>
std::string read_text(const S& source, std::uint64_t limit) {
  if (source.size() > limit) {
    fail({.kind = ErrorClass::limit,
          .file = source.name(),
          .found = std::to_string(source.size()) + " bytes",
          .expected = "at most " + std::to_string(limit) + " bytes"});
  }
  return read_text(source, 0, static_cast<std::size_t>(source.size()));
}

/// A little-endian number of type T. \throws as S::read.
template <class T, ByteSource S>
T read_value(const S& source, std::uint64_t offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value{};
  source.read(offset, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
