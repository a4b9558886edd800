// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "ropewalk/io/record_log.hpp"

#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

std::string content(const std::string& path) {
  return read_text(FileSource(path), std::uint64_t{1} << 20);
}

const std::vector<std::string> three = {R"({"a":1})", R"({"b":"two"})", R"({"c":[3,3,3]})"};

std::string three_lines() {
  std::string text;
  for (const std::string& r : three) text += seal_record(r) + "\n";
  return text;
}

ErrorClass kind_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.kind();
  }
  return ErrorClass::internal;
}

}  // namespace

TEST_CASE("io/record_log: crc32c has the published check value") {
  CHECK(crc32c("123456789") == 0xe3069283u);  // RFC 3720, the CRC catalogue's check
  CHECK(crc32c("") == 0);
}

TEST_CASE("io/record_log: a sealed record is JSON with a checksum and opens again") {
  const std::string line = seal_record(R"({"x":1})");
  CHECK(line.substr(0, 15) == R"({"x":1,"crc":")" + line.substr(14, 1));
  CHECK(unseal_record(line) == R"({"x":1})");
  for (std::size_t i = 0; i < line.size(); ++i) {
    std::string bad = line;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    INFO("byte ", i);
    CHECK(!unseal_record(bad));
  }
  CHECK_THROWS_AS(seal_record("{}"), Error);
  CHECK_THROWS_AS(seal_record("{\"a\":\n1}"), Error);
}

TEST_CASE("io/record_log: records are read back in order by the next opening") {
  const TempDir folder;
  {
    RecordLog log(folder / "r");
    CHECK(log.records().empty());
    for (const std::string& r : three) log.append(r);
    CHECK(folder.names() == std::vector<std::string>{"r", "r.holder"});
  }
  CHECK(folder.names() == std::vector<std::string>{"r"});
  CHECK(content(folder / "r") == three_lines());
  const RecordLog log(folder / "r");
  CHECK(log.records() == three);
  CHECK(!log.torn_tail());
}

TEST_CASE("io/record_log: a last line cut at any byte is set aside, the rest stays") {
  const std::string whole = three_lines();
  const std::size_t second = whole.find('\n', whole.find('\n') + 1) + 1;
  for (std::size_t size = second + 1; size <= whole.size(); ++size) {
    INFO("cut at ", size);
    const TempDir folder;
    write_file(folder / "r", whole.substr(0, size));
    {
      RecordLog log(folder / "r");
      // Without its newline the last line is still whole.
      const bool torn = size < whole.size() - 1;
      CHECK(log.records().size() == (torn ? 2 : 3));
      REQUIRE(log.torn_tail().has_value() == torn);
      if (torn) {
        CHECK(log.torn_tail()->bytes == size - second);
        CHECK(content(log.torn_tail()->kept_in) == whole.substr(second, size - second));
      }
      log.append(R"({"d":4})");
    }
    const RecordLog again(folder / "r");
    CHECK(!again.torn_tail());
    CHECK(again.records().back() == R"({"d":4})");
  }
}

TEST_CASE("io/record_log: NULs and a wrong checksum at the end are torn, each kept apart") {
  const TempDir folder;
  write_file(folder / "r", three_lines() + std::string(100, '\0'));
  {
    RecordLog log(folder / "r");
    CHECK(log.records() == three);
    CHECK(log.torn_tail()->kept_in == folder / "r.torn-1");
  }
  std::string text = three_lines();
  text[text.size() - 4] ^= 1;
  write_file(folder / "r", text);
  const RecordLog log(folder / "r");
  CHECK(log.records().size() == 2);
  CHECK(log.torn_tail()->kept_in == folder / "r.torn-2");
}

TEST_CASE("io/record_log: a bad line before the last is refused and names its number") {
  const TempDir folder;
  std::string text = three_lines();
  text[text.find('\n') + 5] ^= 1;
  write_file(folder / "r", text);
  try {
    RecordLog log(folder / "r");
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorClass::state);
    CHECK(e.info().where == "line 2");
  }
  CHECK(content(folder / "r") == text);
  CHECK(folder.names() == std::vector<std::string>{"r"});
}

TEST_CASE("io/record_log: a second process is refused and told who holds the file") {
  const TempDir folder;
  RecordLog log(folder / "r");
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 1;
    try {
      RecordLog second(folder / "r");
    } catch (const Error& e) {
      const bool named = e.info().found.find(std::to_string(::getppid())) != std::string::npos;
      code = e.kind() == ErrorClass::lock && named ? 0 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("io/record_log: the lock of a killed process does not remain, nor its records get lost") {
  const TempDir folder;
  const pid_t child = ::fork();
  if (child == 0) {
    RecordLog log(folder / "r");
    log.append(three[0]);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  const RecordLog log(folder / "r");
  CHECK(log.records() == std::vector<std::string>{three[0]});
}

TEST_CASE("io/record_log: a file deleted or replaced while it is written is an error") {
  const TempDir folder;
  RecordLog log(folder / "r");
  log.append(three[0]);
  write_file(folder / "r", "");
  CHECK(kind_of([&] { log.append(three[1]); }) == ErrorClass::io);
  CHECK(kind_of([&] { log.append(three[1]); }) == ErrorClass::io);
  CHECK(content(folder / "r").empty());
}

TEST_CASE("io/record_log: a folder in place of the file and a missing folder are io errors") {
  const TempDir folder;
  CHECK(kind_of([&] { RecordLog log(folder / "."); }) == ErrorClass::io);
  CHECK(kind_of([&] { RecordLog log(folder / "none/r"); }) == ErrorClass::io);
  CHECK(folder.names().empty());
}

TEST_CASE("io/record_log: a file size limit leaves whole records only") {
  const TempDir folder;
  const pid_t child = ::fork();
  if (child == 0) {
    // In a child: the limit cannot be raised again.
    ::signal(SIGXFSZ, SIG_IGN);
    int code = 1;
    try {
      RecordLog log(folder / "r");
      log.append(three[0]);
      const struct rlimit limit { 40, 40 };  // the second record fits in part
      ::setrlimit(RLIMIT_FSIZE, &limit);
      log.append(three[1]);
    } catch (const Error& e) {
      code = e.kind() == ErrorClass::resource ? 0 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(content(folder / "r") == seal_record(three[0]) + "\n");
  const RecordLog log(folder / "r");
  CHECK(log.records().size() == 1);
}
