#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries run_blocks.sh on documents made here, right and wrong, with a stand-in for the executable.
# usage: test_run_blocks.sh SCRATCH_FOLDER
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
scratch="$1"
rm -rf "$scratch"
mkdir -p "$scratch/source" "$scratch/data"
cd "$scratch" || exit 1
scratch="$PWD"

cat >source/part.cpp <<'EOT'
int half(int x) {
  return x / 2;
}
EOT
cat >ropewalk <<'EOT'
#!/usr/bin/env bash
if [[ "$1" == fail ]]; then echo "no such thing" >&2 && exit 3; fi
echo "arguments: $*"
for name in "$@"; do if [[ -e "$name" ]]; then echo "there is $name"; fi; done
EOT
cat >compiler <<'EOT'
#!/usr/bin/env bash
# compiler FILE -o PROGRAM: a "program" that prints the words of its source in quotes
if grep -q wrong "$1"; then echo "error: wrong" && exit 1; fi
printf '#!/usr/bin/env bash\necho %s\n' "$(grep -o '"[^"]*"' "$1")" >"$3" && chmod +x "$3"
EOT
chmod +x ropewalk compiler

failures=0 documents=0
# expect NAME STATUS SENTENCE: the document comes on stdin, with ''' for fences; its last lines tell.
expect() {
  local status=0
  documents=$((documents + 1))
  sed "s/'''/\`\`\`/" >"source/$1.md"
  bash "$here/run_blocks.sh" --source "$scratch/source" --program "$scratch/ropewalk" \
    --compiler "$scratch/compiler" --data "$scratch/${data:-data}" \
    --scratch "$scratch/run/$1" "$1.md" >"$1.log" 2>&1 || status=$?
  if ((status != $2)) || ! grep -qF -- "$3" "$1.log"; then
    echo "$1: expected exit code $2 and \"$3\"; exited $status and printed"
    cat "$1.log"
    failures=$((failures + 1))
  fi
}

expect right 0 "right.md: 11 checked, 0 skipped, 2 exempt, 0 faults" <<'EOT'
'''sh
./bootstrap.sh one \
  --two   # with a comment
printf 'some text' >mine.txt
ropewalk mine.txt
'''
'''output
arguments: one --two
arguments: mine.txt
there is mine.txt
'''
Files stay for the blocks that follow; the data is where the documents say it is:
'''
./bootstrap.sh ropewalk mine.txt ../shared/data
'''
<!-- a remark between is no marker -->
'''output
... mine.txt ...
...data
'''
<!-- run with: --short -->
'''sh
ropewalk long
'''
'''output
arguments: long --short
'''
<!-- exits 3 -->
'''sh
ropewalk fail
'''
'''output
no such thing
'''
- indented, in a list:
  <!-- from part.cpp -->
  '''cpp
  int half(int x) {
      return x / 2;
  '''
'''cpp
int main() { puts("hello [there]*"); }
'''
'''output
hello [there]*
'''
'''text
a -> b
'''
<!-- not run: takes an hour -->
'''sh
./bootstrap.sh test
'''
'''output
not compared
'''
EOT

expect unmarked 1 "unmarked.md:2: a block of 'cpp' that is neither run nor compared" <<'EOT'
Words.
'''cpp
int half(int x);
'''
EOT
expect language 1 "a block of 'no language'" <<'EOT'
'''
a -> b
'''
EOT
expect reason 1 "a block of 'json'" <<'EOT'
<!-- not run: -->
'''json
{}
'''
EOT
expect far_marker 1 "a block of 'cpp'" <<'EOT'
<!-- from part.cpp -->
Something between.
'''cpp
int half(int x) {
'''
EOT
expect excerpt 1 "differs from part.cpp" <<'EOT'
<!-- from part.cpp -->
'''cpp
int half(int y) {
'''
EOT
expect no_file 1 "is from gone.cpp, which does not exist" <<'EOT'
<!-- from gone.cpp -->
'''cpp
int half(int y) {
'''
EOT
expect output 1 "is not what the block before it prints" <<'EOT'
'''sh
ropewalk one
'''
'''output
arguments: two
'''
EOT
expect no_command 1 "is an output, but no block before it was run" <<'EOT'
'''output
arguments: two
'''
EOT
expect fails 1 "exited 3, expected exit code 0" <<'EOT'
'''sh
ropewalk fail
'''
EOT
expect succeeds 1 "exited 0, expected exit code 3" <<'EOT'
<!-- exits 3 -->
'''sh
ropewalk one
'''
EOT
expect first_fails 1 "exited 3, expected exit code 0" <<'EOT'
'''sh
ropewalk fail
ropewalk one
'''
EOT
expect builds 1 "exited 99, expected exit code 0" <<'EOT'
'''sh
./bootstrap.sh test
'''
EOT
expect other_program 1 "would run 'rm'" <<'EOT'
'''sh
ropewalk one
rm -rf everything
'''
EOT
expect compile 1 "does not compile" <<'EOT'
'''cpp
int main() { wrong(); }
'''
EOT
expect open 1 "a block that does not end" <<'EOT'
'''text
a
EOT
data=absent
expect no_data 77 "no_data.md:1: skipped: ../shared/data is absent" <<'EOT'
'''sh
ropewalk ../shared/data/model.bin
'''
'''output
whatever
'''
EOT
if ((failures > 0)); then exit 1; fi
echo "$documents documents, as expected"
