//! See `derp::fuzzing::http_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| derp::fuzzing::http_head(data));
