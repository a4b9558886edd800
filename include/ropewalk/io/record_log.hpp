// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// RecordLog: an append-only file of JSON lines that survives kill -9 and refuses corruption.

#include <array>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/file.h>
#include <unistd.h>

#include "ropewalk/io/atomic_file.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// CRC-32C (Castagnoli, reflected 0x82f63b78), as iSCSI and ext4 use it.
constexpr std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

namespace detail {

inline constexpr std::string_view crc_key = ",\"crc\":\"";
inline constexpr std::size_t crc_suffix_size = crc_key.size() + 8 + 2;  // 8 digits, then "}

inline std::string crc_suffix(std::string_view object_without_brace) {
  return std::string(crc_key) + hash_text(crc32c(object_without_brace)).substr(8) + "\"}";
}

}  // namespace detail

/// One line of a log, without newline: `{...}` becomes `{...,"crc":"1234abcd"}`, the checksum being
/// that of the text before it. `object`: a JSON object with at least one member, in one line.
inline std::string seal_record(std::string_view object) {
  require(object.size() > 2 && object.front() == '{' && object.back() == '}' &&
              object.find('\n') == std::string_view::npos,
          "a JSON object with a member, in one line");
  object.remove_suffix(1);
  return std::string(object) + detail::crc_suffix(object);
}

/// The object of a sealed line, without the checksum; nothing when the checksum is wrong or absent.
inline std::optional<std::string> unseal_record(std::string_view line) {
  if (line.size() <= detail::crc_suffix_size) return std::nullopt;
  const std::string_view object = line.substr(0, line.size() - detail::crc_suffix_size);
  if (line.substr(object.size()) != detail::crc_suffix(object)) return std::nullopt;
  return std::string(object) + "}";
}

/// What was cut off the end of a log because its last line was incomplete.
struct TornTail {
  std::string kept_in = {};  ///< file that holds the bytes
  std::size_t bytes = 0;
};

namespace detail {

/// Says who holds a log, for the message to others; removed with the holder.
class HolderNote {
 public:
  explicit HolderNote(std::string path) : path_(std::move(path)) {}
  HolderNote(const HolderNote&) = delete;
  HolderNote& operator=(const HolderNote&) = delete;
  ~HolderNote() {
    if (written_) ::unlink(path_.c_str());
  }
  void write() {
    char host[256] = {};
    ::gethostname(host, sizeof host - 1);
    const std::time_t now = std::time(nullptr);
    struct tm utc {};
    ::gmtime_r(&now, &utc);
    char since[32] = {};
    std::strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &utc);
    write_file(path_, "process " + std::to_string(::getpid()) + " on " + host + " since " + since);
    written_ = true;
  }
  std::string read() const {
    try {
      return read_text(FileSource(path_), 4096);
    } catch (const Error&) {
      return "another process";  // named only where it can be
    }
  }

 private:
  std::string path_;
  bool written_ = false;
};

}  // namespace detail

/// A log of JSON objects, one a line, held by one process at a time. A record is either whole in
/// the file or will be cut off as torn: at most the record in flight is lost, whatever kills the
/// process. Not thread-safe.
class RecordLog {
 public:
  /// Opens or creates `path`, locks it, reads all records, and moves an incomplete last line to
  /// `path`.torn-N.
  /// \throws Error(lock) when another process holds it; Error(state) for a bad line before the
  /// last; Error(io | resource) for the system's refusals.
  explicit RecordLog(std::string path) : path_(std::move(path)), holder_(path_ + ".holder") {
    fd_ = FileDescriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (fd_.get() < 0) detail::fail_write(path_, errno, "opening");
    lock();
    sync_folder();
    read_records();
  }
  RecordLog(const RecordLog&) = delete;
  RecordLog& operator=(const RecordLog&) = delete;

  /// All records, in file order, without their checksums.
  const std::vector<std::string>& records() const { return records_; }
  const std::optional<TornTail>& torn_tail() const { return torn_tail_; }
  const std::string& path() const { return path_; }

  /// Appends one record durably: one write, then fdatasync.
  /// \throws Error(resource | io); the file then still holds whole records only, or a tail that the
  /// next opening cuts off. After an error nothing more is written.
  void append(std::string_view object) {
    if (broken_) {
      fail({.kind = ErrorClass::io, .file = path_, .found = "an earlier failure to write"});
    }
    broken_ = true;  // until all went well: a failed fdatasync must not be tried again
    check_identity();
    const off_t before = ::lseek(fd_.get(), 0, SEEK_END);
    write_line(seal_record(object) + "\n", before);
    if (::fdatasync(fd_.get()) != 0) detail::fail_write(path_, errno, "fdatasync");
    records_.emplace_back(object);
    broken_ = false;
  }

 private:
  void lock() {
    while (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno != EWOULDBLOCK) {
        fail({.kind = ErrorClass::lock,
              .file = path_,
              .found = os_error_text(errno),
              .expected = "a file system with file locks",
              .fix = "Write the results to a local disk"});
      }
      fail({.kind = ErrorClass::lock,
            .file = path_,
            .found = "a file held by " + holder_.read(),
            .expected = "a file that no other process writes",
            .fix = "Wait for it to end, or write elsewhere"});
    }
    check_identity();
    holder_.write();
  }

  /// The name must still lead to the open file: records in a deleted file would be lost.
  void check_identity() const {
    struct stat opened {
    }, named{};
    if (::fstat(fd_.get(), &opened) != 0) detail::fail_write(path_, errno, "fstat");
    if (::stat(path_.c_str(), &named) == 0 && named.st_ino == opened.st_ino &&
        named.st_dev == opened.st_dev) {
      return;
    }
    fail({.kind = ErrorClass::io,
          .file = path_,
          .found = "a file that was deleted or replaced meanwhile",
          .expected = "the file opened at the start"});
  }

  void sync_folder() const {
    const FileDescriptor folder(
        ::open(detail::directory_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder.get() >= 0 && ::fsync(folder.get()) != 0 && errno != EINVAL) {
      detail::fail_write(path_, errno, "fsync of the folder");
    }
  }

  void write_line(std::string_view line, off_t before) {
    std::size_t done = 0;
    while (done < line.size()) {
      const ssize_t n = ::write(fd_.get(), line.data() + done, line.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        const int error = errno;
        // Should this fail, too, the next opening cuts the tail off.
        if (done > 0 && ::ftruncate(fd_.get(), before) != 0) errno = 0;
        detail::fail_write(path_, error, "appending a record");
      }
      done += static_cast<std::size_t>(n);
    }
  }

  void read_records() {
    const std::string text = read_text(FileSource(path_), std::uint64_t{1} << 30);
    std::size_t begin = 0;
    for (std::size_t number = 1; begin < text.size(); ++number) {
      const std::size_t newline = text.find('\n', begin);
      const std::size_t end = newline == std::string::npos ? text.size() : newline;
      std::optional<std::string> record =
          unseal_record(std::string_view(text).substr(begin, end - begin));
      const bool last = end + 1 >= text.size();
      if (record) {
        records_.push_back(*std::move(record));
        if (newline == std::string::npos) write_line("\n", static_cast<off_t>(text.size()));
      } else if (last) {
        cut_tail(std::string_view(text).substr(begin), begin);
        return;
      } else {
        fail({.kind = ErrorClass::state,
              .file = path_,
              .where = "line " + std::to_string(number),
              .found = "a record whose checksum is wrong",
              .expected = "whole records before the last line",
              .fix = "Move the file away and start again, or restore it"});
      }
      begin = end + 1;
    }
  }

  void cut_tail(std::string_view tail, std::size_t keep) {
    TornTail torn{.bytes = tail.size()};
    struct stat s {};
    for (int n = 1; torn.kept_in.empty(); ++n) {
      const std::string name = path_ + ".torn-" + std::to_string(n);
      if (::lstat(name.c_str(), &s) != 0) torn.kept_in = name;
    }
    write_file(torn.kept_in, tail);
    if (::ftruncate(fd_.get(), static_cast<off_t>(keep)) != 0 || ::fsync(fd_.get()) != 0) {
      detail::fail_write(path_, errno, "cutting off an incomplete record");
    }
    torn_tail_ = std::move(torn);
  }

  std::string path_;
  FileDescriptor fd_;
  detail::HolderNote holder_;
  bool broken_ = false;
  std::vector<std::string> records_;
  std::optional<TornTail> torn_tail_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
