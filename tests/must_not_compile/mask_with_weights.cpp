// SPDX-License-Identifier: Apache-2.0
/// \file
/// visible() is a yes or a no: a mask that returns weights would lose them.
// EXPECT: satisf[a-z]+( of)? 'AttentionMask
// EXPECT: 'm\.visible\(i, j\)' does not satisfy|same_as<float, _?[Bb]ool>

#include "ropewalk/attention/masks.hpp"

struct Soft {
#ifdef MISUSE
  float visible(ropewalk::index_t, ropewalk::index_t) const { return 0.5f; }
#else
  bool visible(ropewalk::index_t, ropewalk::index_t) const { return true; }
#endif
};

bool both(ropewalk::index_t i, ropewalk::index_t j) {
  return ropewalk::Intersection<Soft, ropewalk::Causal>{}.visible(i, j);
}
