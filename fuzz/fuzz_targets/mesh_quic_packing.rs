//! See `mesh::fuzzing::quic_packing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh::fuzzing::quic_packing(data));
