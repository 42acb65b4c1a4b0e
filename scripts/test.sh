#!/usr/bin/env bash
# Everything that CI runs, in one go: format, lints, the page, unit and simulation tests, then real processes with a real broker
# and a real browser. Goes on after a failed step, says at the end which failed, and ends with the number of tests.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build lint page test
use_tools

# A clean build needs neither: half the disk, a fifth of the time less.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
mkdir -p target
LOG=target/test.log
: >"$LOG"
failed_steps=()

# run NAME COMMAND…: shows and keeps what it prints
run() {
  local name=$1
  shift
  step "$name"
  if ! "$@" 2>&1 | tee -a "$LOG"; then failed_steps+=("$name"); fi
}

run "format" cargo fmt --all --check
scripts/page.sh build
run "lints" scripts/lint.sh
run "page: types and tests" scripts/page.sh test
scripts/page.sh packages tests/browser
# All in one command: what is selected together is built once, with the same features; the program itself is built beside its tests.
run "unit, simulation and end-to-end tests" cargo test --locked --no-fail-fast --workspace

# Sums "N passed" and "N failed" of cargo's closing lines and of the page's.
count() {
  sed 's/\x1b\[[0-9;]*m//g' "$LOG" | grep -E '^test result: |^ +Tests  ' | grep -oE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}'
}

printf '\n'
for name in ${failed_steps[@]+"${failed_steps[@]}"}; do say "failed: $name"; done
printf '%s passed, %s failed\n' "$(count passed)" "$(count failed)"
[ ${#failed_steps[@]} -eq 0 ]
