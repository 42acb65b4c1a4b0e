//! libFuzzer for [`flota_fuzz::grpc`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flota_fuzz::grpc(data));
