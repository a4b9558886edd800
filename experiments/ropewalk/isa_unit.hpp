// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The body of a translation unit that is compiled for one instruction set, wider than the rest of
/// the executable. The build writes such units (experiments/CMakeLists.txt): each defines
/// ROPEWALK_ABI and ROPEWALK_ISA_GETTER and includes this file.
///
/// The linker keeps one copy of an inline function. If it were a unit's, code that every machine
/// runs could hold instructions that some lack. So every unit has an ABI tag of its own
/// (core/config.hpp), which is part of all its names, and what has no tag (std::) must not be left
/// outside its callers: tests/hygiene reads the symbols of the objects. That is why units are
/// optimised in every build type.
///
/// With the tag, the types of a unit's functions are others than those of the host, declared by the
/// same lines: equal in layout and calling convention, as long as no layout depends on the flags.
/// The getter hands the table over as bytes, and the host calls through its own types. The compiler
/// must not see both sides, so units are left out of link-time optimisation. tests/cli compares the
/// instruction sets' results bit by bit.

#include <cstddef>
#include <cstring>

#include "ropewalk/isa_tables.hpp"

/// Writes the IsaTables of this unit's widest instruction set to `out`; returns its name.
extern "C" const char* ROPEWALK_ISA_GETTER(void* out, std::size_t size) {
  const ropewalk::IsaTables tables = ropewalk::make_isa_tables<ropewalk::simd::widest>();
  if (size != sizeof tables) return "";
  std::memcpy(out, &tables, sizeof tables);
  return tables.name;
}
