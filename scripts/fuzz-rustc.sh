#!/bin/sh
# Compiles one of our crates for libFuzzer: what cargo-fuzz sets, without a sanitizer, as there is no unsafe code on these ways. Used
# by fuzz.sh as RUSTC_WORKSPACE_WRAPPER. Programs that only run while building are compiled as ever.
case " $* " in
  *" build_script_build "*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Copt-level=2 \
  -Cdebug-assertions -Coverflow-checks --cfg=fuzzing
