//! See `mesh::fuzzing::wireguard`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh::fuzzing::wireguard(data));
