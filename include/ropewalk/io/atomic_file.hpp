// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// AtomicFile: an output file that appears complete under its name, or not at all.

#include <atomic>
#include <cstdio>
#include <string>

#include "ropewalk/io/byte_source.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

namespace detail {

/// ENOSPC and its kin are a lack of resources; the rest is IO.
[[noreturn]] inline void fail_write(const std::string& file, int error, const char* doing) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG || error == EMFILE;
  fail({.kind = full ? ErrorClass::resource : ErrorClass::io,
        .file = file,
        .where = doing,
        .found = os_error_text(error)});
}

inline std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace detail

/// Writes to a temporary file beside `path`; commit() makes it durable and renames it. Without
/// commit() the destructor removes it, and what was at `path` stays as it was. Sequential.
class AtomicFile {
 public:
  /// \throws Error(io) when the folder cannot be written or `path` is something else than a file.
  explicit AtomicFile(std::string path) : path_(std::move(path)) {
    struct stat s {};
    if (::stat(path_.c_str(), &s) == 0 && !S_ISREG(s.st_mode)) {
      fail({.kind = ErrorClass::io,
            .file = path_,
            .found = detail::file_type_text(s.st_mode),
            .expected = "a regular file to replace, or none"});
    }
    static std::atomic<unsigned> counter{0};
    for (;;) {
      temporary_ = path_ + ".tmp." + std::to_string(::getpid()) + "." +
                   std::to_string(counter.fetch_add(1, std::memory_order_relaxed));
      const int fd =
          ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
      if (fd >= 0) {
        fd_ = FileDescriptor(fd);
        return;
      }
      if (errno == EEXIST) continue;  // left over by a killed process of the same id
      if (errno != EINTR) detail::fail_write(path_, errno, "creating a file in its folder");
    }
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (!committed_) ::unlink(temporary_.c_str());
  }

  /// Appends. \throws Error(resource) when the disk is full, Error(io) otherwise.
  void write(std::span<const std::byte> data) {
    std::size_t done = 0;
    while (done < data.size()) {
      const std::size_t wanted = std::min<std::size_t>(data.size() - done, std::size_t{1} << 30);
      const ssize_t n = ::write(fd_.get(), data.data() + done, wanted);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) detail::fail_write(path_, errno, "writing");
      done += static_cast<std::size_t>(n);
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// fsync, rename, fsync of the folder. Call once, last.
  void commit() {
    require(!committed_, "only one call of commit()");
    // A failed fsync is never tried again: the kernel may have dropped the pages.
    if (::fsync(fd_.get()) != 0) detail::fail_write(path_, errno, "fsync");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      detail::fail_write(path_, errno, "renaming the finished file");
    }
    committed_ = true;
    const FileDescriptor folder(
        ::open(detail::directory_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // A folder that may be written but not read (EACCES), and file systems without fsync of folders
    // (EINVAL), leave only the rename's durability open, not the content.
    if (folder.get() >= 0 && ::fsync(folder.get()) != 0 && errno != EINVAL) {
      detail::fail_write(path_, errno, "fsync of the folder");
    }
  }

 private:
  std::string path_;
  std::string temporary_;
  FileDescriptor fd_;
  bool committed_ = false;
};

/// Whether AtomicFile gives such names to what it has not finished: NAME.tmp.PROCESS.NUMBER. In a
/// folder that nobody else writes to, a killed process left the file, and it may be removed.
inline bool is_unfinished_file(std::string_view name) {
  for (int i = 0; i < 2; ++i) {
    const std::size_t digits = name.find_last_not_of("0123456789") + 1;
    if (digits < 2 || digits == name.size() || name[digits - 1] != '.') return false;
    name = name.substr(0, digits - 1);
  }
  return name.size() > 4 && name.ends_with(".tmp");
}

/// Writes `content` as the whole of `path`, atomically.
inline void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace ropewalk::inline ROPEWALK_ABI
