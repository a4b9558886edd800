// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What this process has and may take: memory, and a description of the machine.

#include <cstdint>
#include <string>
#include <string_view>

namespace cli {

/// Memory of this process as the kernel counts it, in bytes; 0 where it does not tell.
struct ProcessMemory {
  std::int64_t resident = 0;       ///< now
  std::int64_t peak_resident = 0;  ///< since the start
  std::int64_t address_space = 0;  ///< now
};
ProcessMemory process_memory();

/// How much more memory this process may take, and what sets the limit.
struct MemoryRoom {
  std::int64_t bytes = 0;
  std::string limit = {};  ///< "MemAvailable", "the cgroup's memory.max", "RLIMIT_AS (ulimit -v)"
};
/// The smallest of the machine's free memory, the cgroup's and the process's limits. Where none is
/// known, 2^62 bytes.
MemoryRoom memory_room();

/// The value of a line "KEY:   123 kB" of /proc/meminfo and /proc/self/status, in bytes; -1 when
/// there is none.
std::int64_t kilobytes_of(std::string_view text, std::string_view key);

/// "12.3 MB"; powers of 1000.
std::string bytes_text(double bytes);

std::string processor_name();
std::string host_name();
/// "2026-01-31T12:00:00Z"
std::string utc_now();

}  // namespace cli
