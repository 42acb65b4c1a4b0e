#!/usr/bin/env bash
# Durable echo jobs a second end to end and the latency of a lone one; bench/README.md tells how to read it.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/build.sh
exec target/release/flota bench dispatch "$@"
