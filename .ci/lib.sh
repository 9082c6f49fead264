# SPDX-License-Identifier: Apache-2.0
# Sourced by .ci/run and .ci/matrix: named steps with their times, and the tally at the end.
#
# A step is a function. It runs in a subshell under 'set -e'; when it fails the others still run, and
# the whole run fails at the end.

passed=0
failed=0
skipped=0
failed_names=()
timings=()

# 75 is the exit status of a step that could not run here (EX_TEMPFAIL of sysexits.h).
readonly SKIPPED=75

skip() {
  echo "skipped: $*"
  exit "$SKIPPED"
}

step() {
  local name=$1 status=0 started=$SECONDS
  printf '\n==== %s\n' "$name"
  set +e
  (
    set -euo pipefail
    "${@:2}"
  ) </dev/null
  status=$?
  set -e
  local verdict=passed
  case $status in
    0) passed=$((passed + 1)) ;;
    "$SKIPPED") skipped=$((skipped + 1)) verdict=skipped ;;
    *) failed=$((failed + 1)) verdict="FAILED ($status)" failed_names+=("$name") ;;
  esac
  timings+=("$(printf '%5d s  %-12s %s' $((SECONDS - started)) "$verdict" "$name")")
  printf '==== %s: %s, %d s\n' "$name" "$verdict" $((SECONDS - started))
}

# The last line is the one that machines read.
finish() {
  printf '\n==== Summary (%d s)\n' "$SECONDS"
  printf '%s\n' "${timings[@]}"
  ((failed == 0)) || printf 'failed: %s\n' "${failed_names[@]}"
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0))
}

# new_venv <folder> [<python>]: a fresh virtual environment.
new_venv() {
  rm -rf "$1"
  "${2:-$PYTHON}" -m venv "$1"
}

# copy_tree <folder>: what git tracks and what it would track, as it is now.
copy_tree() {
  mkdir -p "$1"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [[ -e $file ]] && printf '%s\0' "$file"; done |
    tar --create --null --files-from=- | tar --extract --directory="$1"
}

# readme_block <n> <readme>: the n-th fenced bash block.
readme_block() {
  awk -v wanted="$1" '
    /^```/ { if (inside) { inside = 0 } else if ($0 ~ /^```bash/) { inside = 1; count++; next } }
    inside && count == wanted' "$2"
}

# build_wheel <python> <folder>: the wheel, built in isolation; prints its path. What compilers say is in
# <folder>.log.
build_wheel() {
  rm -rf "$2"
  mkdir -p "$2"
  "$1" -m pip wheel -v --no-deps --wheel-dir "$2" . >"$2.log" 2>&1 || { tail -n 50 "$2.log" >&2; return 1; }
  echo "$2"/embedcore-*.whl
}

# sanitized_wheel <flags> <folder> <environment>: a wheel with line numbers, installed.
sanitized_wheel() {
  rm -rf "$2"
  "$PYTHON" -m pip wheel -qq --no-deps --wheel-dir "$2" . -C install.strip=false \
    -C cmake.define.EMBEDCORE_CUDA=OFF \
    -C "cmake.define.CMAKE_CXX_FLAGS=$1 -g1 -fno-omit-frame-pointer"
  new_venv "$3"
  "$3/bin/python" -m pip install -qq "$(echo "$2"/*.whl)[test]"
}

# preload <sanitizer>...: the run-time libraries that Python, itself without a sanitizer, must load first.
preload() {
  local name
  for name in "$@" stdc++; do printf '%s ' "$(gcc -print-file-name="lib$name.so")"; done
}

# find_python <version>: on PATH, or among those of pyenv.
find_python() {
  local candidate
  for candidate in "$(command -v "python$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    # A shim of pyenv is on PATH but may refuse to run.
    [[ -x $candidate ]] && "$candidate" -c '' 2>/dev/null && { echo "$candidate"; return; }
  done
  return 1
}
