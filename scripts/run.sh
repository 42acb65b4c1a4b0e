#!/usr/bin/env bash
# From a fresh clone to a running fleet on this machine: broker, master, one worker, page.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/compile.sh
exec target/release/flota up "$@"
