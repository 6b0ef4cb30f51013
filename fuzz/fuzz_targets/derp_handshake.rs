//! See `derp::fuzzing::handshake`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| derp::fuzzing::handshake(data));
