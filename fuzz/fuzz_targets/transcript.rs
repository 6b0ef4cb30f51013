//! See `session::fuzzing::transcript`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::fuzzing::transcript(data));
