//! libFuzzer for [`flota_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flota_fuzz::config(data));
