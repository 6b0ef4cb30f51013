//! See `codewire::fuzzing::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codewire::fuzzing::config(data));
