//! See `mesh::fuzzing::peer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh::fuzzing::peer(data));
