//! libFuzzer for [`flota_fuzz::mqtt`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flota_fuzz::mqtt(data));
