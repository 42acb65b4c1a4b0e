//! libFuzzer for [`flota_fuzz::rest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flota_fuzz::rest(data));
