// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/io/file_kind.hpp"
#include "ropewalk/io/file_name.hpp"

#include "support/error_of.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

TEST_CASE("io/byte_source: file and memory give the same bytes at every offset and length") {
  const TempDir dir;
  std::string text;
  for (int i = 0; i < 40; ++i) text += static_cast<char>('A' + i);
  const FileSource file(dir.write("a", text));
  const MemorySource memory(text);
  CHECK(file.size() == text.size());
  CHECK(file.name() == dir / "a");
  for (std::size_t at = 0; at <= text.size(); ++at) {
    for (std::size_t n = 0; n <= text.size() - at; ++n) {
      REQUIRE(read_text(file, at, n) == text.substr(at, n));
      REQUIRE(read_text(memory, at, n) == text.substr(at, n));
    }
  }
}

TEST_CASE("io/byte_source: reading beyond the end is an error with the offset, also for 2^64 - 1") {
  const TempDir dir;
  const FileSource file(dir.write("a", "12345"));
  const MemorySource memory(std::string_view("12345"));
  for (const std::uint64_t at : {std::uint64_t{2}, std::uint64_t{6}, ~std::uint64_t{0}}) {
    std::vector<std::byte> out(4);
    const ErrorInfo a = error_of([&] { file.read(at, out); });
    const ErrorInfo b = error_of([&] { memory.read(at, out); });
    CHECK(a.kind == ErrorClass::format);
    CHECK(a.where == "byte " + std::to_string(at));
    CHECK(a.file == dir / "a");
    CHECK(b.kind == ErrorClass::format);
  }
}

TEST_CASE("io/byte_source: what is no regular file is refused by name and never blocks") {
  const TempDir dir;
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  std::filesystem::create_symlink("nowhere", dir / "dangling");
  std::filesystem::create_symlink("loop", dir / "loop");
  struct Row {
    std::string path;
    std::string says;
  };
  for (const Row& row : {Row{dir / "pipe", "a pipe"}, Row{dir.path(), "a directory"},
                         Row{"/dev/null", "a character device"},
                         Row{dir / "dangling", "No such file"}, Row{dir / "absent", "No such file"},
                         Row{dir / "loop", "symbolic links"}, Row{"", "No such file"}}) {
    CAPTURE(row.path);
    const ErrorInfo e = error_of([&] { FileSource source(row.path); });
    CHECK(e.kind == ErrorClass::io);
    CHECK(e.found.find(row.says) != std::string::npos);
    CHECK(e.file == row.path);
  }
  CHECK(error_of([&] { FileSource source(std::string("a\0b", 3)); }).kind == ErrorClass::path);
}

TEST_CASE("io/byte_source: a file that shrinks or grows after opening is an IO error") {
  const TempDir dir;
  const std::string path = dir.write("a", std::string(10000, 'x'));
  const FileSource file(path);
  file.check_unchanged();
  std::filesystem::resize_file(path, 5000);
  std::vector<std::byte> out(10000);
  const ErrorInfo e = error_of([&] { file.read(0, out); });
  CHECK(e.kind == ErrorClass::io);
  CHECK(e.where == "byte 5000");
  CHECK(error_of([&] { file.check_unchanged(); }).kind == ErrorClass::io);
  std::filesystem::resize_file(path, 20000);
  CHECK(error_of([&] { file.check_unchanged(); }).kind == ErrorClass::io);
}

TEST_CASE("io/byte_source: a file replaced by rename is still the one that was opened") {
  const TempDir dir;
  const std::string path = dir.write("a", "old");
  const FileSource file(path);
  std::filesystem::rename(dir.write("b", "newer"), path);
  CHECK(read_text(file, 100) == "old");
}

TEST_CASE("io/byte_source: the streamed hash is that of the whole, across chunk boundaries") {
  const TempDir dir;
  for (const std::size_t size : {0u, 1u, 1048575u, 1048576u, 1048577u, 2500000u}) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>((i * 131) >> 3);
    const FileSource file(dir.write("a", text));
    CHECK(content_hash(file) == content_hash(std::as_bytes(std::span(text.data(), text.size()))));
  }
  CHECK(error_of([&] { read_text(FileSource(dir / "a"), 100); }).kind == ErrorClass::limit);
}

TEST_CASE("io/file_kind: files are recognised by content") {
  const auto kind = [](std::string_view s) { return file_kind(s, s.size()); };
  CHECK(kind("") == FileKind::empty);
  CHECK(kind("version https://git-lfs.github.com/spec/v1\noid") == FileKind::git_lfs_pointer);
  CHECK(kind("<!DOCTYPE html><html>") == FileKind::html);
  CHECK(kind("\n <html lang=en>") == FileKind::html);
  CHECK(kind("{\"error\":\"not found\"}") == FileKind::json);
  CHECK(kind(std::string_view("GGUF\3\0\0\0", 8)) == FileKind::gguf);
  CHECK(kind("PK\3\4..") == FileKind::zip);
  CHECK(kind("\x1f\x8b\x08") == FileKind::gzip);
  CHECK(kind("\x80\x02}q\x01") == FileKind::pickle);
  CHECK(kind(std::string_view("\x02\0\0\0\0\0\0\0{}", 10)) == FileKind::safetensors);
  // llama2.c headers of dim 640 and 2048 look like no other kind.
  CHECK(kind(std::string_view("\x80\x02\0\0\0\x05\0\0", 8)) == FileKind::unknown);
  CHECK(kind(std::string_view("\0\x08\0\0\0\x16\0\0", 8)) == FileKind::unknown);
}

TEST_CASE("io/file_name: only plain names in the same folder are accepted") {
  for (const std::string name : {"../x.safetensors", "a/../../x", "/etc/passwd", "..", ".", "",
                                 "..\\x", "C:\\x", "sub/x.safetensors", "a\\b"}) {
    CAPTURE(name);
    const ErrorInfo e = error_of([&] { check_file_name(name, "index", "/weight_map/a"); });
    CHECK(e.kind == ErrorClass::path);
    CHECK(e.found == escaped(name));
  }
  CHECK(outcome_of([] { check_file_name(std::string("x\0y", 3), "f", ""); }) == "path");
  CHECK(outcome_of([] { check_file_name(std::string(5000, 'a'), "f", ""); }) == "path");
  CHECK(outcome_of([] { check_file_name("model-00001-of-00002.safetensors", "f", ""); }) ==
        "accepted");
}
