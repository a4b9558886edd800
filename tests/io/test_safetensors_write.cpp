// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <csignal>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <sys/resource.h>

#include "ropewalk/io/safetensors.hpp"
#include "ropewalk/io/safetensors_write.hpp"

#include "io/make_safetensors.hpp"
#include "support/error_of.hpp"
#include "support/kill_points.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

std::string content(const std::string& path) {
  return read_text(FileSource(path), std::uint64_t{1} << 24);
}

/// Elements 0, 1, ... times `scale`.
std::vector<float> ramp(std::size_t count, float scale) {
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = scale * static_cast<float>(i);
  return out;
}

/// One tensor of `rows` times 64, written row by row.
void write_ramp(const std::string& path, std::int64_t rows, float scale) {
  SafetensorsWriter writer(path, {{"x", {rows, 64}}}, {{"format", "pt"}});
  const std::vector<float> values = ramp(static_cast<std::size_t>(rows) * 64, scale);
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
    writer.write(std::span(values).subspan(row * 64, 64));
  }
  writer.commit();
}

/// Whether the file is what write_ramp wrote.
bool holds_ramp(const std::string& path, std::int64_t rows, float scale) {
  const FileSource source(path);
  const SafetensorsIndex index = read_safetensors_index(source);
  const SafetensorsTensor* x = index.find("x");
  if (x == nullptr || x->elements != static_cast<std::uint64_t>(rows) * 64) return false;
  std::vector<float> values(static_cast<std::size_t>(rows) * 64);
  read_floats(source, index, *x, 0, values);
  return values == ramp(values.size(), scale);
}

}  // namespace

TEST_CASE("io/safetensors_write: the bytes are those of the format, the data on 8 bytes") {
  const TempDir dir;
  const std::vector<float> values{1, -2.5f, 0x1p-149f, -0.0f, std::numeric_limits<float>::max(), 3};
  // Every length of the name moves the header's end.
  for (std::size_t length = 1; length <= 9; ++length) {
    const std::string name(length, 'n');
    SafetensorsWriter writer(dir / "a", {{name, {2, 2}}, {"empty", {0, 5}}, {"v", {2}}},
                             {{"format", "pt"}});
    writer.write(std::span(values).first(3));  // the pieces need not be rows
    writer.write(std::span(values).subspan(3));
    writer.commit();
    std::string header = R"({"__metadata__":{"format":"pt"},")" + name +
                         R"(":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                         R"("empty":{"dtype":"F32","shape":[0,5],"data_offsets":[16,16]},)"
                         R"("v":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}})";
    while (header.size() % 8 != 0) header += ' ';
    CHECK(content(dir / "a") == raw_safetensors(header, bytes_of(std::span<const float>(values))));
  }
  CHECK(dir.names() == std::vector<std::string>{"a"});
}

TEST_CASE("io/safetensors_write: names and metadata of any text come back") {
  const TempDir dir;
  const std::string name = "quote \" back \\ line \n tab \t euro \xe2\x82\xac";
  SafetensorsWriter writer(dir / "a", {{name, {1}}}, {{"key \"", name}});
  writer.write(std::vector<float>{7});
  writer.commit();
  const FileSource source(dir / "a");
  const SafetensorsIndex index = read_safetensors_index(source);
  REQUIRE(index.tensors.size() == 1);
  CHECK(index.tensors[0].name == name);
  REQUIRE(index.metadata.size() == 1);
  CHECK(index.metadata[0].first == "key \"");
  CHECK(index.metadata[0].second == name);
}

TEST_CASE("io/safetensors_write: too few and too many elements are refused, and sizes checked") {
  const TempDir dir;
  for (const std::size_t count : {0u, 5u, 7u}) {
    SafetensorsWriter writer(dir / "a", {{"x", {2, 3}}}, {});
    writer.write(std::vector<float>(count));
    CHECK(outcome_of([&] { writer.commit(); }) == "usage");
  }
  constexpr std::int64_t large = std::int64_t{1} << 40;
  CHECK(outcome_of([&] { SafetensorsWriter(dir / "a", {{"x", {large, large}}}, {}); }) == "limit");
  CHECK(outcome_of([&] {
          SafetensorsWriter(dir / "a", {{"x", {large, 1 << 23}}}, {});
        }) == "limit");  // 2^63 elements: their bytes exceed 64 bits
  CHECK(outcome_of([&] { SafetensorsWriter(dir / "absent/a", {{"x", {1}}}, {}); }) == "io");
  CHECK(dir.names().empty());
}

TEST_CASE("io/safetensors_write: a disk that fills up at any byte leaves the old file") {
  const TempDir dir;
  write_ramp(dir / "a", 3, 1);
  const std::size_t size = [&] {
    write_ramp(dir / "b", 4, 2);
    return content(dir / "b").size();
  }();
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // then write() says EFBIG
  std::string outcomes;
  for (std::size_t limit = 0; limit < size; limit += 7) {
    struct rlimit small = before;
    small.rlim_cur = limit;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const std::string outcome = outcome_of([&] { write_ramp(dir / "a", 4, 2); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    REQUIRE(outcome == "resource");
    REQUIRE(holds_ramp(dir / "a", 3, 1));
  }
  std::signal(SIGXFSZ, handler);
  CHECK(dir.names() == std::vector<std::string>{"a", "b"});
}

TEST_CASE("io/safetensors_write: killed at any system call, the old file or the new one is there") {
  const TempDir dir;
  const std::string path = dir / "a";
  bool any_new = false, any_old = false;
  const auto calls =
      for_each_kill_point([&] { write_ramp(path, 3, 1); }, [&] { write_ramp(path, 4, 2); },
                          [&](bool ended) {
                            const bool is_new = holds_ramp(path, 4, 2);
                            REQUIRE((is_new || holds_ramp(path, 3, 1)));
                            if (ended) CHECK(is_new);
                            any_new = any_new || is_new;
                            any_old = any_old || !is_new;
                          });
  if (calls.empty()) {
    MESSAGE("skipped: tracing of processes is not allowed here");
    return;
  }
  CHECK(any_new);
  CHECK(any_old);
  CHECK(calls.size() > 6);  // open, writes, fsync, rename, fsync
  // Against power loss: the data before the name, and the name before the end.
  const auto renamed = std::find_if(calls.begin(), calls.end(), is_rename);
  REQUIRE(renamed != calls.end());
  CHECK(last_comes_after({calls.begin(), renamed}, SYS_fsync, SYS_write));
  CHECK(last_comes_after({renamed, calls.end()}, SYS_fsync, SYS_openat));
}
