// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Laws of AttentionMask: the accelerators of a mask say nothing that visible() does not.

#include <algorithm>

#include <doctest/doctest.h>

#include "ropewalk/attention/concepts.hpp"

namespace ropewalk::laws {

/// Number of visible pairs of q x k, and hence what classify may answer.
template <AttentionMask M>
index_t count_visible(const M& mask, Interval q, Interval k) {
  index_t n = 0;
  for (index_t i = q.begin; i < q.end; ++i) {
    for (index_t j = k.begin; j < k.end; ++j) n += mask.visible(i, j) ? 1 : 0;
  }
  return n;
}

/// skip only where nothing is visible, full only where everything is.
template <ClassifyingMask M>
void check_classify(const M& mask, Interval q, Interval k) {
  const BlockKind kind = mask.classify(q, k);
  if (kind == BlockKind::partial) return;
  const index_t expected = kind == BlockKind::full ? q.size() * k.size() : 0;
  if (count_visible(mask, q, k) == expected) return;  // an assertion per rectangle is slow
  CAPTURE(q.begin);
  CAPTURE(q.end);
  CAPTURE(k.begin);
  CAPTURE(k.end);
  FAIL_CHECK((kind == BlockKind::full ? "full, but a pair is hidden" : "skip, but one is visible"));
}

/// All laws on a batch of n tokens: every rectangle for small n, every grid of blocks otherwise.
template <AttentionMask M>
void check_attention_mask(const M& mask, index_t n) {
  CAPTURE(n);
  check_mask(mask, n);
  const M copy = mask;
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) {
      if (copy.visible(i, j) != mask.visible(i, j)) FAIL_CHECK("a copy is another mask");
    }
  }
  if constexpr (RowIntervalMask<M>) {
    for (index_t i = 0; i < n; ++i) {
      const Interval row = mask.row_interval(i);
      for (index_t j = 0; j < n; ++j) {
        const bool inside = row.begin <= j && j < row.end;
        if (mask.visible(i, j) == inside) continue;
        CAPTURE(i);
        CAPTURE(j);
        FAIL_CHECK("row_interval disagrees with visible");
      }
    }
  }
  if constexpr (ClassifyingMask<M>) {
    if (n <= 9) {
      for (index_t qb = 0; qb <= n; ++qb)
        for (index_t qe = qb; qe <= n; ++qe)
          for (index_t kb = 0; kb <= n; ++kb)
            for (index_t ke = kb; ke <= n; ++ke) check_classify(mask, {qb, qe}, {kb, ke});
    }
    for (const index_t q_block : {1, 4, 7, 64}) {
      for (const index_t k_block : {1, 5, 8, 64}) {
        for (index_t q = 0; q < n; q += q_block) {
          for (index_t k = 0; k < n; k += k_block) {
            check_classify(mask, {q, std::min(n, q + q_block)}, {k, std::min(n, k + k_block)});
          }
        }
      }
    }
  }
  if constexpr (DocumentMask<M>) {
    const auto offsets = mask.cu_seqlens();
    REQUIRE(!offsets.empty());
    CHECK(offsets.front() == 0);
    CHECK(offsets.back() == n);
    for (std::size_t d = 1; d < offsets.size(); ++d) {
      REQUIRE(offsets[d - 1] <= offsets[d]);
      const Interval document{offsets[d - 1], offsets[d]};
      CHECK(count_visible(mask, document, {0, document.begin}) == 0);
      CHECK(count_visible(mask, document, {document.end, n}) == 0);
    }
  }
}

}  // namespace ropewalk::laws
