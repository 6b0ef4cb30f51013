//! See `derp::fuzzing::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| derp::fuzzing::frames(data));
