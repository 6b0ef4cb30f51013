//! See `derp::fuzzing::router`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| derp::fuzzing::router(data));
