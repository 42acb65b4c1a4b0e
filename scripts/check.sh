#!/usr/bin/env bash
# The quick part of test.sh for every day: format, lints, tests of the pure core and the wire.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build lint
use_tools
step "format"
cargo fmt --all --check
step "lints"
scripts/lint.sh
step "tests of the wire and the core"
cargo test --locked -p flota-proto -p flota-common --lib
cargo test --locked -p flota-master --lib --test core --test simulation
