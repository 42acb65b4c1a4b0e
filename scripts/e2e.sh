#!/usr/bin/env bash
# The tests with real processes: `e2e.sh` runs all, `e2e.sh NAME…` the files tests/tests/NAME.rs. FLOTA_KEEP_LOGS=1 keeps what
# the processes wrote and says where.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page test
use_tools
scripts/page.sh build
scripts/page.sh packages tests/browser

cargo build --locked --bin flota
export FLOTA_BIN="$ROOT/target/debug/flota"
export FLOTA_TEST_PYTHON="$TOOLS/python/bin/python"

selection=()
for name in "$@"; do selection+=(--test "$name"); done
cargo test --locked --no-fail-fast -p flota-tests ${selection[@]+"${selection[@]}"}
