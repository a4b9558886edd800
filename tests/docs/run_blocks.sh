#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks every fenced code block of one Markdown file: commands are run, programs compiled and run,
# excerpts looked up in their files, outputs compared. A block of unknown kind is a fault.
#
#   ```sh, or without a language but beginning with ./bootstrap.sh or ropewalk: is run
#   ```cpp with a main(): is compiled and run        ```text: a picture or formula, not checked
#   ```output: what the block before it prints; "..." stands for anything
#   any other: needs a marker, a comment in the lines just above the block
#     <!-- from FILE -->        found word by word in FILE, a path from the project's root
#     <!-- not run: WHY -->     neither run nor compared
#     <!-- run with: ARGS -->   ARGS are added to its last command, e.g. to make it short
#     <!-- exits N -->          ends with code N; its output is then that of stdout and stderr
#
# A block that names ../shared/data is skipped where that folder is absent.
# exit codes: 0 all is well, 1 faults, 77 nothing could be checked for want of data
set -uo pipefail

source_dir="" program="" compiler="" libraries="" data="" scratch="" document=""
while (($# > 0)); do
  case "$1" in
    --source) source_dir="$2" && shift ;;
    --program) program="$2" && shift ;;   # the executable ropewalk
    --compiler) compiler="$2" && shift ;; # with its flags; ends up before FILE -o PROGRAM LIBRARIES
    --libraries) libraries="$2" && shift ;;
    --data) data="$2" && shift ;;
    --scratch) scratch="$2" && shift ;;
    *) document="$1" ;;
  esac
  shift
done
seconds=60  # a block that takes longer is marked, or run with fewer tokens

# The folder where commands run looks like the project's, so that they run as they are printed.
work="$scratch/ropewalk"
rm -rf "$scratch"
mkdir -p "$work/build/release" "$scratch/bin" "$scratch/shared" "$scratch/out"
ln -s "$program" "$work/build/release/ropewalk"
ln -s "$program" "$scratch/bin/ropewalk"
if [[ -d "$data" ]]; then ln -s "$(cd "$data" && pwd)" "$scratch/shared/data"; fi
cat >"$work/bootstrap.sh" <<'WRAPPER'
#!/usr/bin/env bash
case "${1:-}" in
  test | check | build) echo "installs and builds: not in a test" >&2 && exit 99 ;;
  ropewalk) shift ;;
esac
exec "$(dirname "$0")/build/release/ropewalk" "$@"
WRAPPER
chmod +x "$work/bootstrap.sh"

faults=0 checked=0 skipped=0 exempt=0
number=0             # line of the block's opening fence
last=none            # what became of the block that an output block belongs to
last_output=""       # file of what it printed

at() { printf '%s:%s' "$document" "$number"; }
fault() {
  echo "$(at): $1"
  faults=$((faults + 1))
}
indented() { sed 's/^/    /'; }

# The text with every run of white space as one blank.
words() { tr -s '[:space:]' ' ' <<<"$1" | sed 's/^ //; s/ $//'; }

# check_excerpt FILE TEXT
check_excerpt() {
  if [[ ! -f "$source_dir/$1" ]]; then
    fault "is from $1, which does not exist"
    return
  fi
  local whole part
  whole="$(words "$(cat "$source_dir/$1")")"
  part="$(words "$2")"
  if [[ -z "$part" || "$whole" != *"$part"* ]]; then
    fault "differs from $1; the block is"
    indented <<<"$2"
    return
  fi
  checked=$((checked + 1))
}

# The first words of a block's commands that are none of those it may run.
unknown_commands() {
  sed -e ':join' -e '/\\$/{N;s/\\\n/ /;b join' -e '}' <<<"$1" |
    sed -e 's/^[[:space:]]*//' -e '/^#/d' -e '/^$/d' | cut -d ' ' -f 1 |
    grep -vxE '\./bootstrap\.sh|ropewalk|build/release/ropewalk|printf|echo|cat|head|tail|cmp|diff|mkdir|ls'
}

# finish STATUS WANTED: records how a program or a block of commands ended.
finish() {
  if (($1 != $2)); then
    local ended="exited $1"
    if (($1 == 124)); then ended="took more than $seconds s"; fi
    fault "$ended, expected exit code $2; it printed"
    tail -n 20 "$scratch/out/$number.all" | indented
    last=failed
    return
  fi
  checked=$((checked + 1))
  last=ran
  last_output="$scratch/out/$number.out"
  if (($2 != 0)); then last_output="$scratch/out/$number.all"; fi
}

# run STATUS COMMAND...: in the work folder.
run() {
  local wanted="$1" status=0
  shift
  (cd "$work" && PATH="$scratch/bin:$PATH" timeout "$seconds" "$@") \
    >"$scratch/out/$number.out" 2>"$scratch/out/$number.err" </dev/null || status=$?
  cat "$scratch/out/$number.out" "$scratch/out/$number.err" >"$scratch/out/$number.all"
  finish "$status" "$wanted"
}

# run_commands TEXT ARGUMENTS STATUS
run_commands() {
  local unknown
  unknown="$(unknown_commands "$1")"
  if [[ -n "$unknown" ]]; then
    fault "would run '$(head -n 1 <<<"$unknown")': mark it <!-- not run: WHY -->"
    last=failed
    return
  fi
  if [[ "$1" == *../shared/data* && ! -e "$scratch/shared/data" ]]; then
    echo "$(at): skipped: ../shared/data is absent"
    skipped=$((skipped + 1))
    last=skipped
    return
  fi
  printf 'set -euo pipefail\n%s %s\n' "$1" "$2" >"$scratch/out/$number.sh"
  run "$3" bash "$scratch/out/$number.sh"
}

# run_program TEXT STATUS
run_program() {
  local file="$scratch/out/$number"
  printf '%s\n' "$1" >"$file.cpp"
  # shellcheck disable=SC2086  # flags are words
  if ! $compiler "$file.cpp" -o "$file" $libraries >"$file.all" 2>&1; then
    fault "does not compile:"
    grep -m 10 -E 'error|undefined' "$file.all" | indented
    last=failed
    return
  fi
  run "$2" "$file"
}

# check_output TEXT: "..." matches anything, blanks at the ends of lines do not count.
check_output() {
  case "$last" in
    none) fault "is an output, but no block before it was run" ;;
    skipped | exempt) echo "$(at): not compared: the block before it was not run" ;;
    ran)
      local pattern found
      pattern="$(sed 's/[[:space:]]*$//; s/[][\\*?]/\\&/g; s/\.\.\./*/g' <<<"$1")"
      found="$(sed 's/[[:space:]]*$//' "$last_output")"
      # shellcheck disable=SC2053  # a pattern on purpose
      if [[ "$found" == $pattern ]]; then
        checked=$((checked + 1))
      else
        fault "is not what the block before it prints:"
        diff <(echo "$1") <(echo "$found") | head -n 40 | indented
      fi
      ;;
  esac
}

# check_block LANGUAGE TEXT MARKERS
check_block() {
  local language="$1" text="$2" marker from="" reason="" arguments="" status=0
  while IFS= read -r marker; do
    marker="${marker#*<!-- }"
    marker="${marker% -->*}"
    case "$marker" in
      "from "*) from="${marker#from }" ;;
      "not run: "?*) reason="${marker#not run: }" ;;
      "run with: "*) arguments="${marker#run with: }" ;;
      "exits "[0-9]*) status="${marker#exits }" ;;
    esac
  done <<<"$3"
  if [[ -z "$language" && "$text" =~ ^(\./bootstrap\.sh|ropewalk|build/release/ropewalk)\  ]]; then
    language=sh
  fi
  if [[ "$language" == output && -z "$reason" ]]; then
    check_output "$text"
    return
  fi
  last=none
  if [[ -n "$reason" ]]; then
    echo "$(at): not run: $reason"
    exempt=$((exempt + 1))
    last=exempt
  elif [[ -n "$from" ]]; then
    check_excerpt "$from" "$text"
  elif [[ "$language" == text ]]; then
    exempt=$((exempt + 1))
  elif [[ "$language" == sh ]]; then
    run_commands "$text" "$arguments" "$status"
  elif [[ "$language" == cpp && "$text" == *"int main("* ]]; then
    run_program "$text" "$status"
  else
    fault "a block of '${language:-no language}' that is neither run nor compared: mark it <!-- from FILE --> or <!-- not run: WHY -->, or call it text or output"
  fi
}

cd "$source_dir" || exit 1
inside=0 line_number=0 language="" text="" markers="" indent=""
while IFS= read -r line || [[ -n "$line" ]]; do
  line_number=$((line_number + 1))
  if ((inside)); then
    if [[ "$line" =~ ^[[:space:]]*\`\`\`[[:space:]]*$ ]]; then
      inside=0
      check_block "$language" "${text%$'\n'}" "$markers"
      markers=""
    else
      text+="${line#"$indent"}"$'\n'
    fi
  elif [[ "$line" =~ ^([[:space:]]*)\`\`\`([^\`]*)$ ]]; then
    inside=1 number=$line_number indent="${BASH_REMATCH[1]}"
    language="${BASH_REMATCH[2]%% *}" text=""
  elif [[ "$line" =~ ^[[:space:]]*\<!--\ .*--\>[[:space:]]*$ ]]; then
    markers+="$line"$'\n'
  else
    markers=""
  fi
done <"$document"
if ((inside)); then fault "a block that does not end"; fi

echo "$document: $checked checked, $skipped skipped, $exempt exempt, $faults faults"
if ((faults > 0)); then exit 1; fi
if ((checked == 0 && skipped > 0)); then exit 77; fi
