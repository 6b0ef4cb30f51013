//! See `mesh::fuzzing::control`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh::fuzzing::control(data));
