#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compares two commands that measure the same thing, in alternating order (A B B A A B B A ...), so
# that a machine that slows down or speeds up meanwhile does so to both.
set -uo pipefail

usage() {
  cat <<'END'
Usage: benchmarks/compare.sh [-n PAIRS] [-k KEY] [-l] 'COMMAND A' 'COMMAND B'

Runs each command PAIRS times (10), and prints the medians, their spread (smallest to largest), and
the ratio B / A of the pairs: median, spread, and in how many pairs B was the better one.

  -n PAIRS  pairs of runs [10]
  -k KEY    compare the number after "KEY": in the commands' output (JSON, as of ropewalk bench
            --format jsonl and of --benchmark_format=json; of several, the last); without it the
            seconds that the commands take
  -l        less is better (seconds always are); otherwise more is

Examples:
  benchmarks/compare.sh -k tok_s \
    'old/ropewalk bench --shape micro --format jsonl' \
    'new/ropewalk bench --shape micro --format jsonl'
  benchmarks/compare.sh -n 20 -k gflops \
    'old/ropewalk-bench --benchmark_filter=gemm/512x688 --benchmark_format=json' \
    'new/ropewalk-bench --benchmark_filter=gemm/512x688 --benchmark_format=json'

To know the noise, compare a command with itself.
END
}

die() {
  printf 'compare.sh: %s\n' "$1" >&2
  exit 2
}

pairs=10 key="" less=0
while getopts ":n:k:lh" option; do
  case "$option" in
    n) pairs="$OPTARG" ;;
    k) key="$OPTARG" ;;
    l) less=1 ;;
    h) usage && exit 0 ;;
    *) die "unknown option or missing value: -$OPTARG (see -h)" ;;
  esac
done
shift $((OPTIND - 1))
if (($# != 2)); then usage >&2 && exit 2; fi
[[ "$pairs" =~ ^[1-9][0-9]{0,3}$ ]] || die "-n: found '$pairs', expected 1 to 9999"
[[ "$key" =~ ^[A-Za-z0-9_./-]*$ ]] || die "-k: found '$key', expected the name of a JSON number"
if [[ -z "$key" ]]; then less=1; fi
commands=("$1" "$2")

# Prints the measure of one run of command $1 (0 or 1).
measure() {
  local output start end value
  start="$(date +%s.%N)"
  if ! output="$(bash -c "${commands[$1]}" 2>/dev/null)"; then
    die "failed: ${commands[$1]}"
  fi
  end="$(date +%s.%N)"
  if [[ -z "$key" ]]; then
    awk -v a="$start" -v b="$end" 'BEGIN { printf "%.6f\n", b - a }'
    return
  fi
  value="$(grep -oE "\"$key\" *: *-?[0-9][0-9.eE+-]*" <<<"$output" | tail -n 1 | sed 's/.*: *//')"
  [[ -n "$value" ]] || die "no number \"$key\" in the output of: ${commands[$1]}"
  printf '%s\n' "$value"
}

results="$(mktemp)"
trap 'rm -f "$results"' EXIT
for ((i = 0; i < pairs; ++i)); do
  if ((i % 2 == 0)); then
    a="$(measure 0)" || exit 2
    b="$(measure 1)" || exit 2
  else
    b="$(measure 1)" || exit 2
    a="$(measure 0)" || exit 2
  fi
  printf '%s %s\n' "$a" "$b" >>"$results"
  printf 'pair %d of %d: A %s  B %s\n' "$((i + 1))" "$pairs" "$a" "$b" >&2
done

# The sorted numbers of a column of "A B B/A", to "median (smallest to largest)".
summary() {
  awk -v what="$1" '{ print what == 3 ? $2 / $1 : $what }' "$results" | sort -g | awk '
    { x[NR] = $1 }
    END {
      h = int((NR + 1) / 2)
      m = NR % 2 ? x[h] : (x[h] + x[h + 1]) / 2
      printf "%.5g (%.5g to %.5g)\n", m, x[1], x[NR]
    }'
}
printf 'A    %s\nB    %s\n' "$(summary 1)" "$(summary 2)"
better="$(awk -v less="$less" '(less && $2 < $1) || (!less && $2 > $1)' "$results" | wc -l)"
printf 'B/A  %s, B better in %d of %d (%s)\n' "$(summary 3)" "$better" "$pairs" \
  "${key:-seconds}$( ((less)) && echo ', less is better')"
