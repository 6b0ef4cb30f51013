//! See `session::fuzzing::event_line`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::fuzzing::event_line(data));
