//! See `session::fuzzing::terminal_resize`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::fuzzing::terminal_resize(data));
