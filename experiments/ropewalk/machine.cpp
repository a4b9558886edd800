// SPDX-License-Identifier: Apache-2.0
#include "machine.hpp"

#include <charconv>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

namespace cli {

namespace {

/// Content of a file of /proc or /sys, which have no size; empty when it cannot be read.
std::string pseudo_file(const std::string& path) {
  const std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

/// The number at the start of `text`; -1 when there is none, as in "max".
std::int64_t leading_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::int64_t value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string_view after(std::string_view text, std::string_view key) {
  std::size_t at = text.find(key);
  while (at != std::string_view::npos && at != 0 && text[at - 1] != '\n') {
    at = text.find(key, at + 1);
  }
  return at == std::string_view::npos ? std::string_view() : text.substr(at + key.size());
}

/// Room in a control group: its limit less what is used, where caches of files count as free.
std::int64_t cgroup_room(const std::string& folder) {
  const std::int64_t limit = leading_number(pseudo_file(folder + "/memory.max"));
  const std::int64_t used = leading_number(pseudo_file(folder + "/memory.current"));
  if (limit < 0 || used < 0) return -1;
  const std::string stat = pseudo_file(folder + "/memory.stat");
  const std::int64_t cached = leading_number(after(stat, "inactive_file "));
  return limit - used + (cached > 0 ? cached : 0);
}

void lower(MemoryRoom& room, std::int64_t bytes, const char* limit) {
  if (bytes >= 0 && bytes < room.bytes) room = {bytes, limit};
}

}  // namespace

std::int64_t kilobytes_of(std::string_view text, std::string_view key) {
  const std::string_view value = after(text, std::string(key) + ":");
  const std::int64_t kilobytes = value.empty() ? -1 : leading_number(value);
  return kilobytes < 0 ? -1 : kilobytes * 1024;
}

ProcessMemory process_memory() {
  const std::string status = pseudo_file("/proc/self/status");
  const auto bytes = [&status](const char* key) {
    return std::max<std::int64_t>(kilobytes_of(status, key), 0);
  };
  return {bytes("VmRSS"), bytes("VmHWM"), bytes("VmSize")};
}

MemoryRoom memory_room() {
  MemoryRoom room{std::int64_t{1} << 62, "no limit that is known"};
  lower(room, kilobytes_of(pseudo_file("/proc/meminfo"), "MemAvailable"), "MemAvailable");
  // Version 2: every group above ours counts, too. In a container the root is its own group.
  std::string group = pseudo_file("/proc/self/cgroup");
  group = std::string(after(group, "0::"));
  group = group.substr(0, group.find('\n'));
  for (;;) {
    lower(room, cgroup_room("/sys/fs/cgroup" + group), "the cgroup's memory.max");
    const std::size_t slash = group.rfind('/');
    if (slash == std::string::npos) break;
    group.resize(slash);
  }
  const std::string v1 = "/sys/fs/cgroup/memory/memory.";
  const std::int64_t limit = leading_number(pseudo_file(v1 + "limit_in_bytes"));
  const std::int64_t used = leading_number(pseudo_file(v1 + "usage_in_bytes"));
  if (limit >= 0 && used >= 0) lower(room, limit - used, "the cgroup's memory.limit_in_bytes");
  struct rlimit space {};
  if (::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) {
    const std::int64_t left =
        static_cast<std::int64_t>(space.rlim_cur) - process_memory().address_space;
    lower(room, std::max<std::int64_t>(left, 0), "RLIMIT_AS (ulimit -v)");
  }
  return room;
}

std::string bytes_text(double bytes) {
  const char* units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
  int unit = 0;
  while (bytes >= 999.5 && unit < 5) bytes /= 1000, ++unit;
  return unit == 0 ? fmt::format("{:.0f} bytes", bytes)
                   : fmt::format("{:.3g} {}", bytes, units[unit]);
}

std::string processor_name() {
  const std::string info = pseudo_file("/proc/cpuinfo");
  std::string_view name = after(info, "model name");
  name.remove_prefix(std::min(name.find_first_not_of(" \t:"), name.size()));
  return std::string(name.substr(0, name.find('\n')));
}

std::string host_name() {
  char host[256] = {};
  return ::gethostname(host, sizeof host - 1) == 0 ? host : "";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  struct tm utc {};
  ::gmtime_r(&now, &utc);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace cli
