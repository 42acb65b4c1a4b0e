#!/usr/bin/env bash
# What takes too long for every day, with the same tests and larger numbers.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build lint page test
use_tools
step "simulation: 20,000 seeds"
FLOTA_SIM_SEEDS=20000 cargo test --release --locked -p flota-master --test simulation -- --nocapture
step "simulation: the five seeded defects are found"
cargo test --release --locked -p flota-master --features seeded-defects --test simulation
step "scale: a million jobs and ten thousand workers in memory, a million waiting jobs read back"
FLOTA_SCALE_JOBS=1000000 FLOTA_SCALE_WORKERS=10000 cargo test --release --locked -p flota-master --test scale -- --nocapture --test-threads 1
step "RandomX: a thousand random inputs, our virtual machine against the library's"
cargo test --release --locked -p flota-randomx --lib machine::tests::many_hashes_are_the_librarys -- --exact --ignored --nocapture
step "search: 20,000 nonces on two workers, one of them killed"
FLOTA_TEST_NONCES=20000 scripts/e2e.sh search
step "page: Lighthouse"
scripts/lighthouse.sh
step "embeddings: a real model's vectors through the fleet, beside its own library's"
scripts/embeddings.sh
