#!/usr/bin/env bash
# Breaks a real fleet for MINUTES (10 without it) and says what became of every job; what else is given goes to the harness. As root
# it also cuts networks, fills the disk and sets the clock; otherwise it says what it leaves out.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page test
use_tools
scripts/page.sh build
cargo build --release --locked --bin flota
cargo build --release --locked -p flota-tests --bin chaos
FLOTA_BIN=$ROOT/target/release/flota target/release/chaos --minutes "${MINUTES:-10}" "$@"
