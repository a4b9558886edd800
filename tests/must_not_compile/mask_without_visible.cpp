// SPDX-License-Identifier: Apache-2.0
/// \file
/// A mask is what says which pairs are visible.
// EXPECT: satisf[a-z]+( of)? 'AttentionMask
// EXPECT: 'm\.visible\(i, j\)'

#include "ropewalk/attention/block_plan.hpp"

struct EveryOther {
#ifndef MISUSE
  bool visible(ropewalk::index_t i, ropewalk::index_t j) const {
    return j <= i && (i - j) % 2 == 0;
  }
#endif
};

ropewalk::BlockPlan plan() { return ropewalk::make_block_plan(EveryOther{}, 100); }
