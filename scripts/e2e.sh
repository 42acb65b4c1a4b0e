#!/usr/bin/env bash
# The tests with real processes: `e2e.sh` runs all, `e2e.sh NAME…` the files tests/tests/NAME.rs. FLOTA_KEEP_LOGS=1 keeps what
# the processes wrote and says where. FLOTA_SCREENSHOTS=DIR takes pictures of the page, FLOTA_BROWSER_SLOWDOWN=6 makes it that much slower.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page test
use_tools
scripts/page.sh build
scripts/page.sh packages tests/browser

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(basename -s .rs tests/tests/*.rs)
selection=()
for name in "${names[@]}"; do selection+=(--test "$name"); done
# The whole workspace, as test.sh does: the same features, so nothing is built twice; and the program that is tested.
cargo test --locked --workspace --no-run
cargo test --locked --no-fail-fast --workspace "${selection[@]}"
