//! libFuzzer for [`flota_fuzz::topics`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flota_fuzz::topics(data));
