// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "ropewalk/io/atomic_file.hpp"
#include "ropewalk/io/npy.hpp"

#include "support/error_of.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {
std::string content(const std::string& path) { return read_text(FileSource(path), 1 << 20); }
using Names = std::vector<std::string>;
}  // namespace

TEST_CASE("io/atomic_file: the file appears with commit and not before") {
  const TempDir dir;
  {
    AtomicFile file(dir / "a");
    file.write("half");
    CHECK(dir.names().size() == 1);
    CHECK(dir.names()[0] != "a");
    file.write(" whole");
    file.commit();
  }
  CHECK(dir.names() == Names{"a"});
  CHECK(content(dir / "a") == "half whole");
}

TEST_CASE("io/atomic_file: without commit nothing is left and the old content stays") {
  const TempDir dir;
  dir.write("a", "old");
  {
    AtomicFile file(dir / "a");
    file.write("new");
  }
  CHECK(dir.names() == Names{"a"});
  CHECK(content(dir / "a") == "old");
  write_file(dir / "a", "new");
  CHECK(content(dir / "a") == "new");
}

TEST_CASE("io/atomic_file: folders, devices and missing folders are refused at once") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "folder");
  CHECK(error_of([&] { AtomicFile f(dir / "folder"); }).found == "a directory");
  CHECK(error_of([&] { AtomicFile f("/dev/null"); }).kind == ErrorClass::io);
  CHECK(error_of([&] { AtomicFile f(dir / "absent/a"); }).kind == ErrorClass::io);
  CHECK(dir.names() == Names{"folder"});
}

TEST_CASE("io/atomic_file: a full disk is a resource error and leaves nothing behind") {
  const TempDir dir;
  dir.write("a", "old");
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  struct rlimit small = before;
  small.rlim_cur = 4096;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // then write() says EFBIG
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const ErrorInfo e = error_of([&] { write_file(dir / "a", std::string(100000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(e.kind == ErrorClass::resource);
  CHECK(dir.names() == Names{"a"});
  CHECK(content(dir / "a") == "old");
}

TEST_CASE("io/atomic_file: unfinished files are known by their names") {
  const TempDir dir;
  {
    AtomicFile file(dir / "a.b");
    REQUIRE(dir.names().size() == 1);
    CHECK(is_unfinished_file(dir.names()[0]));
    file.commit();
  }
  CHECK(dir.names() == std::vector<std::string>{"a.b"});
  CHECK(is_unfinished_file("x.tmp.12.0"));
  for (const char* name : {"", ".", "12.0", ".tmp.12.0", "x.tmp.12", "x.tmp.12.", "x.tmp..0",
                           "x.tmp.12.0.", "x.tmp.1a.0", "x.tmp.12.0a", "x.tmp", "xtmp.12.0"}) {
    INFO(name);
    CHECK_FALSE(is_unfinished_file(name));
  }
}

TEST_CASE("io/npy: the bytes are those that NumPy's format 1.0 asks for") {
  const TempDir dir;
  const std::vector<double> values{
      1, -2.5, 0x1p-1074, std::numeric_limits<double>::infinity(), 1.0 / 3, 6};
  write_npy(dir / "a.npy", {values.data(), {2, 3}});
  const std::string file = content(dir / "a.npy");
  REQUIRE(file.size() == 128 + 48);
  CHECK(file.substr(0, 10) == std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  CHECK(file.substr(10, 60) == "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), } ");
  CHECK(file[127] == '\n');
  CHECK(std::memcmp(file.data() + 128, values.data(), 48) == 0);
  CHECK(dir.names() == Names{"a.npy"});

  const NpyMatrix back = read_npy(FileSource(dir / "a.npy"));
  CHECK(back.rows == 2);
  CHECK(back.columns == 3);
  CHECK(std::memcmp(back.values.data(), values.data(), 48) == 0);
}

TEST_CASE("io/npy: a transposed view is written in its own order") {
  const TempDir dir;
  const std::vector<double> values{1, 2, 3, 4, 5, 6};
  write_npy(dir / "a.npy", {values.data(), {3, 2}, {1, 3}});
  CHECK(read_npy(FileSource(dir / "a.npy")).values == std::vector<double>{1, 4, 2, 5, 3, 6});
}

TEST_CASE("io/npy: every truncation and other dtypes are refused") {
  const TempDir dir;
  const std::vector<double> values{1, 2};
  write_npy(dir / "a.npy", {values.data(), {1, 2}});
  std::string file = content(dir / "a.npy");
  for (std::size_t n = 0; n < file.size(); ++n) {
    REQUIRE(outcome_of([&] { read_npy(MemorySource(std::string_view(file).substr(0, n))); }) ==
            "format");
  }
  CHECK(outcome_of([&] { read_npy(MemorySource(file + "x")); }) == "format");
  file.replace(file.find("<f8"), 3, "<f4");
  CHECK(outcome_of([&] { read_npy(MemorySource(file)); }) == "format");
}
