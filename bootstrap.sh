#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds, and runs: from a bare machine to a result in one command.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
release="$root/build/release"
logs="$root/build/logs"

usage() {
  cat <<'EOF'
usage: ./bootstrap.sh test                 install, build, run the tests
       ./bootstrap.sh check                warnings as errors (g++ and clang++), headers alone,
                                           sanitizers, formatting
       ./bootstrap.sh build                install and build, run nothing
       ./bootstrap.sh COMMAND [ARGS...]    install, build, then run `ropewalk COMMAND ARGS...`
       ./bootstrap.sh ropewalk [ARGS...]   the same for any arguments, e.g. `ropewalk --help`

Examples:
  ./bootstrap.sh selftest
  ./bootstrap.sh sweep --help

Missing packages are installed through apt on Debian and Ubuntu (with sudo unless root);
elsewhere their list is printed and nothing is changed. Standard output carries only what the
program or the tests print; build logs are in build/logs/.

Environment: CXX (compiler of a fresh release build), WERROR (ON: its warnings are errors, as for
the checks), JOBS (parallel compilations, default: all processors).
Exit codes: those of the program or tests; 1 build failed, 2 usage, 5 packages missing.
EOF
}

say() { printf 'bootstrap: %s\n' "$*" >&2; }

die() {
  local code="$1"
  shift
  say "$@"
  exit "$code"
}

# ---- packages ---------------------------------------------------------------------------------

base_packages=(g++ cmake ninja-build pkg-config libeigen3-dev libxsimd-dev libxxhash-dev
  nlohmann-json3-dev libpcre2-dev libutf8proc-dev libcli11-dev libfmt-dev doctest-dev
  libbenchmark-dev)
check_packages=(clang clang-format libclang-rt-dev)

# The program that makes a package unnecessary when it is there by another way.
program_of() {
  case "$1" in
    g++) echo "${CXX:-g++}" ;;
    cmake) echo cmake ;;
    ninja-build) echo ninja ;;
    pkg-config) echo pkg-config ;;
    clang) echo clang++ ;;
    clang-format) echo clang-format ;;
  esac
}

is_installed() {
  local program
  program="$(program_of "$1")"
  if [[ -n "$program" ]] && command -v "$program" >/dev/null 2>&1; then return 0; fi
  command -v dpkg-query >/dev/null 2>&1 &&
    [[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

as_root() {
  if [[ "$(id -u)" == 0 ]]; then
    "$@"
  elif [[ -t 0 ]]; then
    sudo "$@"
  else
    sudo -n "$@"
  fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"; }

install_packages() {
  local package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then return 0; fi

  if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-query >/dev/null 2>&1; then
    # Libraries cannot be looked up here: only missing programs stop us, CMake looks for the rest.
    local programs=()
    for package in "${missing[@]}"; do
      if [[ -n "$(program_of "$package")" ]]; then programs+=("$package"); fi
    done
    if ((${#programs[@]} > 0)); then packages_needed "$@"; fi
    return 0
  fi
  local command="apt-get install --no-install-recommends ${missing[*]}"
  if [[ "$(id -u)" != 0 ]] && ! command -v sudo >/dev/null 2>&1; then
    die 5 "missing packages, and neither root nor sudo to install them; as root: $command"
  fi
  say "installing ${missing[*]}"
  local log="$logs/packages.log"
  : >"$log"
  if ! apt install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
    apt update >>"$log" 2>&1 </dev/null || true  # the package list may be absent or old
    if ! apt install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
      tail -n 20 "$log" >&2
      die 5 "could not install the packages (log: $log); by hand: $command"
    fi
  fi
}

# Stops with the list of everything that is needed, under the names that Debian gives it.
packages_needed() {
  say "no apt-get here; please install these (Debian's names):"
  printf '  %s\n' "$@" >&2
  say "that is: a C++20 compiler, CMake >= 3.25, Ninja, pkg-config, Eigen 3.4, xsimd, xxHash,"
  say "nlohmann-json, PCRE2 (8 bit), utf8proc, CLI11, fmt, doctest, Google Benchmark; for the checks"
  say "also clang and clang-format"
  exit 5
}

require_cmake() {
  local version
  version="$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')"
  if [[ "$(printf '%s\n3.25\n' "$version" | sort -V | head -n 1)" != 3.25 ]]; then
    die 5 "CMake $version is too old: 3.25 or newer is needed"
  fi
}

# ---- building ---------------------------------------------------------------------------------

jobs_count() { echo "${JOBS:-$(nproc 2>/dev/null || echo 2)}"; }

# step <name> <what> <command...>: runs quietly from the project's root with its output in a log;
# a failure shows the log's end.
step() {
  local what="$2" log="$logs/$1.log"
  shift 2
  say "$what"
  if ! (cd "$root" && "$@") >"$log" 2>&1 </dev/null; then
    if grep -q "required packages are missing" "$log" && ! command -v apt-get >/dev/null 2>&1; then
      packages_needed "${base_packages[@]}"
    fi
    # The first errors say more than the last lines of a parallel build.
    grep -n -m 20 -E '(error|FAILED|CMake Error|undefined reference)' "$log" >&2 || true
    echo "..." >&2
    tail -n 25 "$log" >&2
    die 1 "failed: $what (whole log: $log)"
  fi
}

# Two runs at once would disturb each other's build folder: the second one waits.
lock() {
  mkdir -p "$logs"
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$root/build/.lock"
    if ! flock -n 9; then
      say "waiting for another run in this folder"
      flock 9
    fi
  fi
}

unlock() { exec 9>&- || true; }

# configure_release [ON]: with ON, or WERROR=ON for a fresh build, warnings are errors.
configure_release() {
  local werror="${1:-${WERROR:-OFF}}"
  if [[ $# == 1 || ! -f "$release/build.ninja" ]]; then
    step configure-release "configuring (build/release)" \
      cmake --preset release "-DROPEWALK_WERROR=$werror"
  fi
}

build_executable() {
  lock
  install_packages "${base_packages[@]}"
  require_cmake
  configure_release
  local what="bringing build/release/ropewalk up to date"
  if [[ ! -x "$release/ropewalk" ]]; then
    what="building build/release/ropewalk (a few minutes, the first time only)"
  fi
  step build-executable "$what" \
    cmake --build "$release" -j "$(jobs_count)" --target ropewalk_executable
  unlock
}

# ctest's own counts, as "N passed, N failed, N skipped".
counts() {
  local suite total failed skipped disabled
  suite="$(grep -m 1 '<testsuite' -A 8 "$1" | tr '\n\t' '  ')"
  number() { sed -n "s/.*[ ]$1=\"\([0-9]*\)\".*/\1/p" <<<"$suite"; }
  total="$(number tests)" failed="$(number failures)"
  skipped="$(number skipped)" disabled="$(number disabled)"
  echo "$((total - failed - skipped - disabled)) passed, $failed failed," \
    "$((skipped + disabled)) skipped"
}

run_tests() {
  lock
  install_packages "${base_packages[@]}"
  require_cmake
  configure_release
  step build-release "building the tests (build/release; some minutes, the first time only)" \
    cmake --build "$release" -j "$(jobs_count)"
  local status=0
  (cd "$root" && ctest --preset release -j "$(jobs_count)" --output-junit "$release/ctest.xml") \
    </dev/null || status=$?
  counts "$release/ctest.xml"
  return "$status"
}

# Compares texts: --dry-run of clang-format 14 also reports namespace comments that are right.
check_format() {
  local file wrong=0
  while IFS= read -r -d '' file; do
    if ! clang-format "$file" | cmp -s - "$file"; then
      echo "error: $file is not formatted; run: clang-format -i $file"
      wrong=1
    fi
  done < <(find include tests experiments benchmarks examples \
    \( -name '*.hpp' -o -name '*.cpp' \) -print0 2>/dev/null)
  return "$wrong"
}

run_checks() {
  lock
  install_packages "${base_packages[@]}" "${check_packages[@]}"
  require_cmake
  local jobs status=0
  jobs="$(jobs_count)"
  local asan_arch=()
  if [[ "$(uname -m)" != x86_64 ]]; then asan_arch=(-DROPEWALK_ARCH=native); fi
  step format "formatting (clang-format)" check_format
  configure_release ON
  step build-release "building build/release, warnings as errors (g++)" \
    cmake --build "$release" -j "$jobs"
  step configure-headers "configuring build/warnings-clang" cmake --preset warnings-clang
  step build-headers "every header alone, warnings as errors (clang++)" \
    cmake --build --preset warnings-clang -j "$jobs"
  step configure-asan "configuring build/asan" cmake --preset asan "${asan_arch[@]}"
  step build-asan "building tests and executable with sanitizers, warnings as errors" \
    cmake --build --preset asan -j "$jobs"
  say "tests under address and undefined-behaviour sanitizers"
  (cd "$root" && ctest --preset asan -j "$jobs" --output-junit "$root/build/asan/ctest.xml") \
    </dev/null || status=$?
  counts "$root/build/asan/ctest.xml"
  if ((status == 0)); then say "all checks passed"; fi
  return "$status"
}

# ---- commands ---------------------------------------------------------------------------------

case "${1:-}" in
  "" | -h | --help | help)
    usage
    if [[ -z "${1:-}" ]]; then exit 2; fi
    ;;
  test | check)
    if (($# > 1)); then die 2 "unexpected argument '$2' after '$1'; see ./bootstrap.sh --help"; fi
    if [[ "$1" == test ]]; then run_tests; else run_checks; fi
    ;;
  build)
    build_executable
    ;;
  *)
    if [[ "$1" == ropewalk ]]; then shift; fi
    build_executable
    exec "$release/ropewalk" "$@"
    ;;
esac
