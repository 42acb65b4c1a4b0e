#!/usr/bin/env bash
# Throws bytes at what reads from outside: `fuzz.sh [SECONDS] [TARGET…]`, by default 60 seconds a target, all targets. libFuzzer with
# the compiler that is here (cargo-fuzz wants a nightly one): what it finds is kept in target/fuzz, new inputs in target/fuzz/corpus.
# FLOTA_FUZZ_AT_ONCE=n runs n targets at a time.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
scripts/setup.sh build
use_tools
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(mqtt topics grpc rest gemini config)
mkdir -p target/fuzz
# Only our own crates tell what they run through; what they depend on is what other builds have made.
RUSTC_WORKSPACE_WRAPPER=$ROOT/scripts/fuzz-rustc.sh CARGO_INCREMENTAL=0 cargo build --locked -p flota-fuzz --features libfuzzer --bins
run() {
  local target=$1
  mkdir -p "target/fuzz/corpus/$target"
  "target/debug/$target" "target/fuzz/corpus/$target" "fuzz/corpus/$target" -max_total_time="$seconds" -max_len=16384 \
    -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="target/fuzz/$target-" >"target/fuzz/$target.log" 2>&1
}
failed=0
running=()
for target in "${targets[@]}"; do
  step "fuzz $target for $seconds s"
  run "$target" &
  running+=($!)
  if [ ${#running[@]} -ge "${FLOTA_FUZZ_AT_ONCE:-1}" ]; then
    wait "${running[0]}" || failed=1
    running=("${running[@]:1}")
  fi
done
for one in ${running[@]+"${running[@]}"}; do wait "$one" || failed=1; done
for target in "${targets[@]}"; do
  printf '%s: %s\n' "$target" "$(grep -E '^Done|SUMMARY|stat::number_of_executed_units' "target/fuzz/$target.log" | tr '\n' ' ')"
done
exit "$failed"
