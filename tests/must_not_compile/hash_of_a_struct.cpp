// SPDX-License-Identifier: Apache-2.0
/// \file
/// A struct is hashed field by field: its padding bytes are anyone's guess.
// EXPECT: requires \(integral<T>\)|'Padded' does not satisfy 'integral'

#include "ropewalk/core/hash.hpp"

struct Padded {
  char kind = 'a';
  double value = 1;
};

std::uint64_t hash(Padded p) {
#ifdef MISUSE
  return ropewalk::Hasher().value(p).digest();
#else
  return ropewalk::Hasher().value(p.kind).value(p.value).digest();
#endif
}
