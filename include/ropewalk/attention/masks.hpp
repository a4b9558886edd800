// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The attention masks: Causal, CausalDocuments, SlidingWindow, Full, and the Intersection of two.

#include <algorithm>
#include <limits>
#include <string>

#include "ropewalk/attention/concepts.hpp"
#include "ropewalk/core/error.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// classify() of a mask whose rows are intervals with both ends non-decreasing from row to row, and
/// none of which lies wholly past its predecessor, as in every mask here: the rows of q together
/// then cover [first_row.begin, last_row.end), and share [last_row.begin, first_row.end).
/// \param first_row, last_row  row_interval of q.begin and of q.end - 1
constexpr BlockKind classify_monotone_rows(Interval k, Interval first_row, Interval last_row) {
  if (k.end <= first_row.begin || k.begin >= last_row.end) return BlockKind::skip;
  if (k.begin >= last_row.begin && k.end <= first_row.end) return BlockKind::full;
  return BlockKind::partial;
}

/// Every token sees itself and all tokens before it.
struct Causal {
  constexpr bool visible(index_t i, index_t j) const { return j <= i; }
  constexpr Interval row_interval(index_t i) const { return {0, i + 1}; }
  constexpr BlockKind classify(Interval q, Interval k) const {
    if (q.empty() || k.empty()) return BlockKind::skip;
    return classify_monotone_rows(k, row_interval(q.begin), row_interval(q.end - 1));
  }
};

/// Every token sees every token of the batch (encoders, diffusion language models).
struct Full {
  constexpr bool visible(index_t, index_t) const { return true; }
  constexpr Interval row_interval(index_t) const {
    return {0, std::numeric_limits<index_t>::max()};
  }
  constexpr BlockKind classify(Interval q, Interval k) const {
    return q.empty() || k.empty() ? BlockKind::skip : BlockKind::full;
  }
};

/// Token i sees the last `window` tokens up to and including itself: i - window < j <= i. This is
/// the count of Hugging Face's `sliding_window`; FlashAttention's window_size_left is one less.
class SlidingWindow {
 public:
  /// \throws Error(usage) unless window >= 1
  constexpr explicit SlidingWindow(index_t window) : window_(window) {
    if (window < 1) {
      fail({.kind = ErrorClass::usage,
            .where = "SlidingWindow",
            .field = "window",
            .found = std::to_string(window),
            .expected = "at least 1: the window counts the token itself",
            .fix = "Use Causal for a window without limit."});
    }
  }
  /// Tokens.
  constexpr index_t window() const { return window_; }
  constexpr bool visible(index_t i, index_t j) const { return i - window_ < j && j <= i; }
  constexpr Interval row_interval(index_t i) const {
    return {std::max<index_t>(0, i - window_ + 1), i + 1};
  }
  constexpr BlockKind classify(Interval q, Interval k) const {
    if (q.empty() || k.empty()) return BlockKind::skip;
    return classify_monotone_rows(k, row_interval(q.begin), row_interval(q.end - 1));
  }

 private:
  index_t window_;
};

/// Causal within each of several documents that are packed into one batch; no token sees another
/// document. Does not own the offsets. Empty documents are allowed.
/// **Cost:** a binary search over the documents per visible() and row_interval().
class CausalDocuments {
 public:
  /// \param cu_seqlens (documents + 1) offsets as FlashAttention has them: the first is 0, the last
  ///   is the number of tokens. \throws Error(usage) when the first is not 0 or an offset falls.
  explicit CausalDocuments(std::span<const std::int32_t> cu_seqlens) : cu_seqlens_(cu_seqlens) {
    if (cu_seqlens.empty() || cu_seqlens.front() != 0) {
      fail({.kind = ErrorClass::usage,
            .where = "CausalDocuments",
            .field = "cu_seqlens[0]",
            .found = cu_seqlens.empty() ? "no offsets" : std::to_string(cu_seqlens.front()),
            .expected = "0",
            .fix = "Give the offset of every document and, last, the number of tokens."});
    }
    for (std::size_t d = 1; d < cu_seqlens.size(); ++d) {
      if (cu_seqlens[d] < cu_seqlens[d - 1]) {
        fail({.kind = ErrorClass::usage,
              .where = "CausalDocuments",
              .field = "cu_seqlens[" + std::to_string(d) + "]",
              .found = std::to_string(cu_seqlens[d]),
              .expected = "at least the offset before it, " + std::to_string(cu_seqlens[d - 1]),
              .fix = "Give offsets from the start of the batch, not lengths."});
      }
    }
  }
  /// \throws Error(usage) unless the last offset is num_tokens
  void check(index_t num_tokens) const {
    if (cu_seqlens_.back() != num_tokens) {
      fail({.kind = ErrorClass::usage,
            .where = "CausalDocuments",
            .field = "cu_seqlens[" + std::to_string(cu_seqlens_.size() - 1) + "]",
            .found = std::to_string(cu_seqlens_.back()),
            .expected = "the number of tokens, " + std::to_string(num_tokens),
            .fix = "End the offsets with the length of the batch."});
    }
  }
  std::span<const std::int32_t> cu_seqlens() const { return cu_seqlens_; }
  /// First token of the document that token i is in.
  index_t document_start(index_t i) const {
    return *(std::upper_bound(cu_seqlens_.begin(), cu_seqlens_.end(), i) - 1);
  }
  bool visible(index_t i, index_t j) const { return j <= i && document_start(i) <= j; }
  Interval row_interval(index_t i) const { return {document_start(i), i + 1}; }
  BlockKind classify(Interval q, Interval k) const {
    if (q.empty() || k.empty()) return BlockKind::skip;
    return classify_monotone_rows(k, row_interval(q.begin), row_interval(q.end - 1));
  }

 private:
  std::span<const std::int32_t> cu_seqlens_;
};

/// A query sees what both masks let it see, as in Intersection{CausalDocuments{..},
/// SlidingWindow{..}}.
template <AttentionMask A, AttentionMask B>
struct Intersection {
  A a;
  B b;

  constexpr bool visible(index_t i, index_t j) const { return a.visible(i, j) && b.visible(i, j); }
  constexpr Interval row_interval(index_t i) const
      requires(RowIntervalMask<A>&& RowIntervalMask<B>) {
    const Interval x = a.row_interval(i), y = b.row_interval(i);
    return {std::max(x.begin, y.begin), std::min(x.end, y.end)};
  }
  constexpr BlockKind classify(Interval q, Interval k) const
      requires(ClassifyingMask<A> || ClassifyingMask<B>) {
    const BlockKind x = classify_or_partial(a, q, k), y = classify_or_partial(b, q, k);
    if (x == BlockKind::skip || y == BlockKind::skip) return BlockKind::skip;
    return x == BlockKind::full && y == BlockKind::full ? BlockKind::full : BlockKind::partial;
  }
  constexpr std::span<const std::int32_t> cu_seqlens() const
      requires(DocumentMask<A> || DocumentMask<B>) {
    if constexpr (DocumentMask<A>) {
      return a.cu_seqlens();
    } else {
      return b.cu_seqlens();
    }
  }
  constexpr void check(index_t num_tokens) const {
    check_mask(a, num_tokens);
    check_mask(b, num_tokens);
  }
};
template <class A, class B>
Intersection(A, B) -> Intersection<A, B>;

static_assert(RowIntervalMask<Causal> && ClassifyingMask<Causal>);
static_assert(RowIntervalMask<Full> && ClassifyingMask<Full>);
static_assert(RowIntervalMask<SlidingWindow> && ClassifyingMask<SlidingWindow>);
static_assert(RowIntervalMask<CausalDocuments> && ClassifyingMask<CausalDocuments> &&
              DocumentMask<CausalDocuments>);
static_assert(DocumentMask<Intersection<SlidingWindow, CausalDocuments>>);

}  // namespace ropewalk::inline ROPEWALK_ABI
