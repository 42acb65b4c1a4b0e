#!/usr/bin/env bash
# What the fleet adds to an AI's answer: the first text of a lone question, many streams at once, Stop. Arguments go to ai-bench, which
# starts a fleet and a stand-in of its own; bench/README.md tells how to read the figures.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page test
scripts/compile.sh
use_tools
cargo build --quiet -p flota-tests --bin ai-bench
FLOTA_BIN="$ROOT/target/release/flota" exec "$ROOT/target/debug/ai-bench" "$@"
