#!/usr/bin/env bash
# Page and program in release. The page first: the program carries it.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build page
use_tools
scripts/page.sh build
if [ ! -x target/release/flota ]; then
  step "program: target/release/flota (the first build fetches $(grep -c '^name = ' Cargo.lock) crates, 400 MB in ~/.cargo; it takes 5 to 15 minutes and 1.1 GB in target/)"
fi
cargo build --release --locked --bin flota
