// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/attention/masks.hpp"

#include "laws/attention_mask_laws.hpp"

namespace ropewalk {
namespace {

using Offsets = std::vector<std::int32_t>;

constexpr index_t sizes[] = {0, 1, 2, 3, 5, 7, 9, 16, 33, 71};
constexpr index_t huge = std::numeric_limits<index_t>::max();

/// Documents of uneven lengths that fill n tokens, with empty ones at both ends and in the middle.
Offsets uneven_documents(index_t n) {
  Offsets offsets{0, 0};
  index_t end = 0;
  for (index_t length = 1; end < n; length = length % 11 * 2 + 1) {
    end = std::min(n, end + length);
    offsets.push_back(static_cast<std::int32_t>(end));
    if (length == 3) offsets.push_back(static_cast<std::int32_t>(end));
  }
  offsets.push_back(static_cast<std::int32_t>(n));
  return offsets;
}

/// Offers visible() alone: query i sees keys of its own parity.
struct SameParity {
  bool visible(index_t i, index_t j) const { return (i - j) % 2 == 0; }
};
static_assert(AttentionMask<SameParity> && !RowIntervalMask<SameParity> &&
              !ClassifyingMask<SameParity>);

/// classify never answers partial where one of the exact answers holds.
template <class M>
void check_classify_is_sharp(const M& mask, index_t n) {
  for (index_t qb = 0; qb < n; ++qb) {
    for (index_t qe = qb + 1; qe <= n; ++qe) {
      for (index_t kb = 0; kb < n; ++kb) {
        for (index_t ke = kb + 1; ke <= n; ++ke) {
          const index_t visible = laws::count_visible(mask, {qb, qe}, {kb, ke});
          const BlockKind expected = visible == 0                       ? BlockKind::skip
                                     : visible == (qe - qb) * (ke - kb) ? BlockKind::full
                                                                        : BlockKind::partial;
          if (mask.classify({qb, qe}, {kb, ke}) != expected) FAIL_CHECK("not sharp");
        }
      }
    }
  }
}

std::string error_of(auto&& make) {
  try {
    make();
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorClass::usage);
    return e.what();
  }
  return "no error";
}

TEST_CASE("attention/masks: accelerators agree with visible()") {
  for (const index_t n : sizes) {
    laws::check_attention_mask(Causal{}, n);
    laws::check_attention_mask(Full{}, n);
    laws::check_attention_mask(SameParity{}, n);
    const Offsets offsets = uneven_documents(n);
    const CausalDocuments documents{offsets};
    laws::check_attention_mask(documents, n);
    for (const index_t window : {index_t{1}, index_t{2}, index_t{5}, index_t{64}, huge}) {
      const SlidingWindow sliding{window};
      laws::check_attention_mask(sliding, n);
      laws::check_attention_mask(Intersection{documents, sliding}, n);
      laws::check_attention_mask(Intersection{sliding, documents}, n);
      laws::check_attention_mask(Intersection{Intersection{Causal{}, sliding}, SameParity{}}, n);
      laws::check_attention_mask(Intersection{SameParity{}, documents}, n);
    }
  }
}

TEST_CASE("attention/masks: classify is sharp, so no block is visited in vain") {
  const Offsets offsets{0, 0, 3, 4, 4, 9};
  check_classify_is_sharp(Causal{}, 9);
  check_classify_is_sharp(Full{}, 9);
  check_classify_is_sharp(CausalDocuments{offsets}, 9);
  for (const index_t window : {1, 2, 3, 9}) check_classify_is_sharp(SlidingWindow{window}, 9);
}

TEST_CASE("attention/masks: rows by hand") {
  // The window counts the token itself.
  CHECK(SlidingWindow{1}.row_interval(4) == Interval{4, 5});
  CHECK(SlidingWindow{3}.row_interval(4) == Interval{2, 5});
  CHECK(SlidingWindow{3}.row_interval(1) == Interval{0, 2});
  CHECK(SlidingWindow{huge}.row_interval(4) == Causal{}.row_interval(4));

  const Offsets offsets{0, 2, 2, 5};
  const CausalDocuments documents{offsets};
  CHECK(documents.row_interval(1) == Interval{0, 2});
  CHECK(documents.row_interval(2) == Interval{2, 3});
  CHECK(documents.row_interval(4) == Interval{2, 5});
  CHECK_FALSE(documents.visible(2, 1));
  CHECK_FALSE(documents.visible(3, 4));
  CHECK(documents.visible(4, 2));

  const Intersection both{documents, SlidingWindow{2}};
  CHECK(both.row_interval(2) == Interval{2, 3});
  CHECK(both.row_interval(4) == Interval{3, 5});
  CHECK(both.cu_seqlens().data() == offsets.data());
}

TEST_CASE("attention/masks: an intersection whose rows are empty") {
  struct StrictlyBefore {
    bool visible(index_t i, index_t j) const { return j < i; }
    Interval row_interval(index_t i) const { return {0, i}; }
  };
  const Intersection nothing{SlidingWindow{1}, StrictlyBefore{}};
  laws::check_attention_mask(nothing, 7);
  CHECK(laws::count_visible(nothing, {0, 7}, {0, 7}) == 0);
  CHECK(nothing.row_interval(3).empty());
}

TEST_CASE("attention/masks: arguments that do not fit are refused by name") {
  const auto documents = [](const Offsets& o) { (void)CausalDocuments{o}; };
  CHECK(error_of([] { (void)SlidingWindow{0}; }) ==
        "SlidingWindow: window: found 0, expected at least 1: the window counts the token itself. "
        "Use Causal for a window without limit.");
  CHECK(error_of([] { (void)SlidingWindow{-7}; }).find("found -7") != std::string::npos);
  CHECK(error_of([&] { documents({}); }).find("no offsets") != std::string::npos);
  CHECK(error_of([&] { documents({1, 4}); }).find("cu_seqlens[0]: found 1") != std::string::npos);
  CHECK(error_of([&] {
          documents({0, 4, 3});
        }).find("cu_seqlens[2]: found 3") != std::string::npos);
  const Offsets four{0, 1, 4};
  check_mask(CausalDocuments{four}, 4);
  const std::string wrong_end = error_of([&] {
    check_mask(Intersection{SlidingWindow{2}, CausalDocuments{four}}, 5);
  });
  CHECK(wrong_end.find("cu_seqlens[2]: found 4, expected the number of tokens, 5") !=
        std::string::npos);
}

}  // namespace
}  // namespace ropewalk
