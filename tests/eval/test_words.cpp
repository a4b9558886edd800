// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "ropewalk/eval/words.hpp"

using namespace ropewalk;

TEST_CASE("eval/words: as len(re.split(r'\\s+', text)) counts") {
  // The right-hand sides are what Python 3 says.
  CHECK(count_words("") == 1);
  CHECK(count_words("one") == 1);
  CHECK(count_words("one two") == 2);
  CHECK(count_words(" one  two\n") == 4);
  CHECK(count_words("a\tb\vc\fd\re\nf") == 6);
  CHECK(count_words("a\x1c\x1d\x1e\x1f"
                    "b") == 2);
  CHECK(count_words("a\u00a0b\u2003c\u3000d\u0085e") == 5);
  CHECK(count_words("a\u1680b\u2028c\u2029d\u202fe\u205ff") == 6);
  CHECK(count_words("\u00e9t\u00e9 \u4e2d\u6587") == 2);
  CHECK(count_words("a\u200bb\u2060c") == 1);  // zero-width: not white space
  CHECK(count_words("a\xe2\x80") == 1);        // cut within a character
  CHECK(count_words("a\xc2") == 1);
}
