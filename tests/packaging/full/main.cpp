// SPDX-License-Identifier: Apache-2.0
/// \file
/// A project that uses everything: files, tokenizers and a user's matrices, in two units.

#include <cstdio>

#include <ropewalk/hub.hpp>

bool rotates_a_matrix();  // second_unit.cpp

int main() {
  if (!rotates_a_matrix()) {
    std::puts("rotation did not keep the length of a row");
    return 1;
  }
  if (ropewalk::open_tokenizer("bytes").vocab_size() < 256) {
    std::puts("bytes are fewer than 256");
    return 1;
  }
  try {
    ropewalk::load_checkpoint("no/such/model.bin");
  } catch (const ropewalk::Error&) {
    return 0;
  }
  std::puts("a missing model was loaded");
  return 1;
}
