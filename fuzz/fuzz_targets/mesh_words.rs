//! See `mesh::fuzzing::words`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh::fuzzing::words(data));
