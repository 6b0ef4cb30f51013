//! See `session::fuzzing::events`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::fuzzing::events(data));
