// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstddef>

#include <ropewalk/io/byte_source.hpp>

bool reads_bytes() {
  const ropewalk::MemorySource source("ropewalk");
  std::array<std::byte, 4> bytes{};
  source.read(4, bytes);
  return static_cast<char>(bytes[0]) == 'w' && source.size() == 8;
}
