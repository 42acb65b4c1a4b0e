#!/usr/bin/env bash
# clippy over the whole workspace, shellcheck over the scripts.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
shellcheck -x scripts/*.sh mosquitto/*.sh tests/swarm/*.sh .ci/run
if lints_are_errors; then
  cargo clippy --locked --workspace --all-targets --features flota-fuzz/libfuzzer -- -D warnings
else
  say "this is Rust $(version_of rustc), the project is linted with $(rust_pinned): lints are shown, not errors"
  cargo clippy --locked --workspace --all-targets --features flota-fuzz/libfuzzer
fi
