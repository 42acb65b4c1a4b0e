#!/usr/bin/env bash
# What the fleet adds to an AI's answer: the first text of a lone question, many streams at once, Stop. Arguments go to ai-bench, which
# starts a fleet and a stand-in of its own; bench/README.md tells how to read the figures.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page test
scripts/compile.sh
use_tools
# Optimised too: the stand-in and the browsers share the cores with the fleet.
cargo build --quiet --release -p flota-tests --bin ai-bench
FLOTA_BIN="$ROOT/target/release/flota" exec "$ROOT/target/release/ai-bench" "$@"
