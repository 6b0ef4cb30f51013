//! See `session::fuzzing::words`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::fuzzing::words(data));
