#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compiles the kernels and their tests for 64-bit ARM and runs them under qemu; compares the hashes
# of all numerics with those of a build for this machine. Not part of continuous integration.
# Debian: g++-aarch64-linux-gnu qemu-user, beside the packages of the tests. Usage: aarch64.sh [OUT]
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
out="${1:-$root/build/aarch64}"
cross=(aarch64-linux-gnu-g++ -std=c++20 -O1 -Wall -Wextra -I"$root/include" -I"$root/tests"
  -isystem "$out/headers")
emulated=(qemu-aarch64 -L /usr/aarch64-linux-gnu)

for program in "${cross[0]}" "${emulated[0]}"; do
  command -v "$program" >/dev/null || {
    echo "$program is missing (Debian: g++-aarch64-linux-gnu, qemu-user)" >&2
    exit 5
  }
done
# Libraries of headers alone, apart from this machine's C library in the same folder.
mkdir -p "$out/headers"
for header in xsimd xxhash.h xxh3.h doctest eigen3/Eigen; do
  ln -sfn "/usr/include/$header" "$out/headers/$(basename "$header")"
done

objects=()
for source in main simd/test_simd simd/test_pairs simd/test_math linalg/test_linalg \
  attention/test_attention attention/test_attention_bits attention/test_attend_backward; do
  echo "compiling tests/$source.cpp" >&2
  object="$out/$(basename "$source").o"
  "${cross[@]}" -c "$root/tests/$source.cpp" -o "$object"
  objects+=("$object")
done
"${cross[0]}" "${objects[@]}" -o "$out/tests"
"${emulated[@]}" "$out/tests"

echo "compiling tests/hygiene/contraction_hash.cpp for both" >&2
"${cross[@]}" "$root/tests/hygiene/contraction_hash.cpp" -o "$out/hash"
"${CXX:-g++}" -std=c++20 -O1 -march=native -I"$root/include" \
  "$root/tests/hygiene/contraction_hash.cpp" -o "$out/hash_here"
diff <("${emulated[@]}" "$out/hash") <("$out/hash_here")
echo "the same bits on both architectures"
