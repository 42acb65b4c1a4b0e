//! libFuzzer for [`flota_fuzz::gemini`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flota_fuzz::gemini(data));
