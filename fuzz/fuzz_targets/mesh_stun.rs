//! See `mesh::fuzzing::stun`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh::fuzzing::stun(data));
